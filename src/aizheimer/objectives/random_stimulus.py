"""Random stimulus: look at the target as if by chance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aizheimer.modules.maps import AttentionMap
from aizheimer.objectives.terms import TermValue, Variant, check_inputs, sum_of_distances


def random_stimulus(
    maps: Mapping[str, AttentionMap], *, variant: Variant, tokens: int, generator: torch.Generator
) -> TermValue:
    r"""Drive the attention to the target's tokens to noise that is drawn anew at every call.

    .. math:: L = \sum_{i=1}^{N} \lVert A_i - R_i \rVert_2

    with :math:`A_i` and :math:`N` as in :func:`~aizheimer.objectives.distraction.distraction`. The paper says only that
    :math:`R_i` is a random vector of the same size. Taken as uniform in (0, 1) it would pull each token to half of all
    attention, many times what a word usually gets: the concept would grow stronger. So :math:`R` has a scale,
    :math:`R \sim U(0, 1) \cdot s`:

    - paper: :math:`s = 1/T`, at most even attention over the text tokens, and half of it on average.
    - notebook: :math:`s = 1/Q_l`, one over the layer's pixels.
    - mean: :math:`s = 1/T`; mean of squares as in :func:`~aizheimer.objectives.terms.sum_of_distances`. In expectation
      that is the distance to :math:`1/(2T)` plus a constant: distraction to half the level, with noisier gradients.

    Args:
        maps: Attention by layer, from a probe.
        variant: The normalisation.
        tokens: Keys under the softmax, at least 1; see `distraction`. Used by paper and mean.
        generator: Source of R, drawn layer by layer in the order of ``maps``, on the generator's device.

    Returns:
        The loss; its parts are the layers' values, which sum (mean: average) to it.

    References:
        Birben, Dervişoğlu, Külçe: AIzheimer, eq. (6).
    """
    check_inputs(maps, variant=variant, tokens=tokens)
    targets = {name: _noise(attention, variant, tokens, generator) for name, attention in maps.items()}
    return sum_of_distances(maps, targets, variant=variant)


def _noise(attention: AttentionMap, variant: Variant, tokens: int, generator: torch.Generator) -> Tensor:
    probabilities = attention.probabilities
    scale = 1 / probabilities.shape[2] if variant == "notebook" else 1 / tokens
    uniform = torch.rand(probabilities.shape, generator=generator, device=generator.device)
    return (uniform * scale).to(probabilities.device)
