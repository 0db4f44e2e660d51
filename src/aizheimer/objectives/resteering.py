"""Attention re-steering: look away from the target."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aizheimer.modules.maps import AttentionMap
from aizheimer.objectives.terms import TermValue, Variant, check_inputs, residual, sum_of_distances


def resteering(
    maps: Mapping[str, AttentionMap],
    *,
    variant: Variant,
    tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> TermValue:
    r"""Drive the attention to the target's tokens to zero.

    .. math:: L = \lVert \operatorname{concat}(A_0 \dots A_n) \rVert_2

    where the :math:`A` are the target's attention probabilities of all heads of all layers, flattened: one norm,
    neither squared nor divided by the number of entries, so it grows with image size and is ruled by the layers with
    the most attention. Symbols as in :mod:`aizheimer.objectives.terms`.

    - paper: :math:`\operatorname{mean}_b \sqrt{\sum_l \sum_h \lVert A_{b,l,h} \rVert^2}`, the equation for one sample,
      averaged over the batch.
    - notebook: one norm over the whole batch as well. The same as paper at batch size 1.
    - mean: :math:`\frac1L \sum_l \operatorname{mean} A_l^2`.

    Args:
        maps: Attention by layer, from a probe.
        variant: The normalisation.
        tokens: Not used; taken so that all attention terms are called alike.
        generator: Not used, likewise.

    Returns:
        The loss. Parts: each layer's own norm (notebook: the total is the root of their summed squares; paper: so for
        each row, parts being averages over rows), or mean of squares, whose average is the total.

    References:
        Birben, Dervişoğlu, Külçe: AIzheimer, eq. (4). Zhang et al.: Forget-Me-Not, arXiv:2303.17591.
    """
    del tokens, generator
    check_inputs(maps, variant=variant)
    if variant == "mean":
        return sum_of_distances(maps, dict.fromkeys(maps, 0.0), variant=variant)
    by_row = {name: _row_norms(attention) for name, attention in maps.items()}
    device = next(iter(by_row.values())).device
    total = torch.linalg.vector_norm(torch.stack([norms.to(device) for norms in by_row.values()]), dim=0)
    # The same rows have a target in every layer: they are the probe's.
    rows = next(iter(maps.values()))

    def over_batch(norms: Tensor) -> Tensor:
        return rows.mean_over_rows(norms) if variant == "paper" else torch.linalg.vector_norm(norms)

    return TermValue(over_batch(total), {name: over_batch(norms.to(device)).detach() for name, norms in by_row.items()})


def _row_norms(attention: AttentionMap) -> Tensor:
    return torch.linalg.vector_norm(residual(attention, 0.0), dim=(1, 2, 3))
