"""Concept-localised regularisation: an eraser may act where the frozen model sees the concept, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aizheimer.errors import InputError
from aizheimer.modules.maps import AttentionMap, grid_size
from aizheimer.objectives.terms import TermValue


def concept_mask(
    maps: Mapping[str, AttentionMap], *, size: tuple[int, int], shrink: int, threshold: float
) -> Bool[Tensor, "batch height width"]:
    r"""Return where the concept is in a picture, by where cross-attention looks for its words.

    The attention of all layers of one resolution is averaged over layers, heads and the concept's tokens, scaled for
    each row so that its smallest value is 0 and its largest 1, and compared with the threshold.

    Args:
        maps: The frozen model's attention to the concept's tokens, by layer.
        size: Height and width of the latents.
        shrink: How many times smaller the layers are that count; 4 in the paper, 16 of 64 cells.
        threshold: :math:`\tau` in (0, 1].

    Returns:
        True where the scaled attention reaches the threshold. A row whose attention is the same everywhere has no
        True: nothing says where the concept is.

    Raises:
        InputError: If no layer has that resolution.

    References:
        Huang et al., Receler, arXiv:2311.17717, section 3.3.
    """
    wanted = tuple(-(-side // shrink) for side in size)
    grids = {name: grid_size(attention.probabilities.shape[2], *size) for name, attention in maps.items()}
    chosen = [_seen(maps[name]).unflatten(1, grid) for name, grid in grids.items() if grid == wanted]
    if not chosen:
        there = ", ".join(sorted({f"{height} x {width}" for height, width in grids.values()}))
        raise InputError(
            f"mask_shrink={shrink}: no cross-attention layer has {wanted[0]} x {wanted[1]} cells for latents of "
            f"{size[0]} x {size[1]}; there are {there}."
        )
    seen = torch.stack(chosen).mean(dim=0)
    low, high = seen.amin(dim=(1, 2), keepdim=True), seen.amax(dim=(1, 2), keepdim=True)
    scaled = (seen - low) / (high - low).clamp(min=torch.finfo(seen.dtype).tiny)
    return scaled >= threshold


def outside_energy(
    additions: Mapping[str, Float[Tensor, "batch queries channels"]],
    mask: Bool[Tensor, "batch height width"],
    *,
    size: tuple[int, int],
) -> TermValue:
    r"""Return how much erasers add outside of the concept.

    .. math:: R = \frac1L \sum_l \operatorname{mean}_b
              \frac{\sum_i (1 - M_{b,i})\,\operatorname{mean}_{ch} o_{l,b,i}^2}{\sum_i (1 - M_{b,i})}

    Args:
        additions: :math:`o_l`, what each layer's eraser adds, by layer.
        mask: :math:`M`; brought to each layer's own grid by nearest neighbour.
        size: Height and width of the latents.

    Returns:
        R; 0 for a row that is all concept. Its parts are the layers' values, whose mean it is.

    References:
        Huang et al., Receler, arXiv:2311.17717, section 3.3.
    """
    layers = {}
    for name, added in additions.items():
        outside = 1 - F.interpolate(mask[:, None].to(added), size=grid_size(added.shape[1], *size)).flatten(1)
        energy = (added.square().mean(dim=2) * outside).sum(dim=1)
        layers[name] = (energy / outside.sum(dim=1).clamp(min=1)).mean()
    total = torch.stack(list(layers.values())).mean()
    return TermValue(total, {name: value.detach() for name, value in layers.items()})


def _seen(attention: AttentionMap) -> Float[Tensor, "batch queries"]:
    """Return the attention to the concept's tokens, averaged over them and over heads."""
    count = attention.valid.sum(dim=1).clamp(min=1)
    return attention.probabilities.float().sum(dim=3).mean(dim=1) / count[:, None]
