"""Distraction: look at the target no more than at anything else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aizheimer.modules.maps import AttentionMap
from aizheimer.objectives.terms import TermValue, Variant, check_inputs, sum_of_distances


def distraction(
    maps: Mapping[str, AttentionMap],
    *,
    variant: Variant,
    tokens: int,
    generator: torch.Generator | None = None,
) -> TermValue:
    r"""Drive the attention to the target's tokens to a small constant.

    .. math:: L = \sum_{i=1}^{N} \left\lVert A_i - \frac{1}{\dim(A_i)} \mathbf 1 \right\rVert_2

    Symbols as in :mod:`aizheimer.objectives.terms`.

    - paper, read literally: :math:`N` counts attention heads, those of all layers together, so :math:`A_i` is the
      flattened attention of one head, :math:`A_{b,l,h}`, and :math:`\dim(A_i) = Q_l n_b` its length.
    - notebook: :math:`N` counts layers, :math:`A_i` is a layer's attention with the batch and all heads in one norm,
      and the constant is :math:`1/Q_l`, one over the layer's pixels.
    - mean: the constant is :math:`1/T`, attention that is really even, because the softmax runs over the :math:`T`
      text tokens (in joint attention over the picture's as well); mean of squares as in
      :func:`~aizheimer.objectives.terms.sum_of_distances`.

    With the first two the constant is far below even attention in large layers (1/4096 at 64 x 64; even is 1/77), and
    for one token it is above it in the smallest (1/64 at 8 x 8).

    Args:
        maps: Attention by layer, from a probe.
        variant: The normalisation.
        tokens: Keys under the softmax, at least 1: the text tokens, and in joint attention the picture's too. Used by
            mean only.
        generator: Not used; taken so that all attention terms are called alike.

    Returns:
        The loss; its parts are the layers' values, which sum (mean: average) to it.

    References:
        Birben, Dervişoğlu, Külçe: AIzheimer, eq. (5).
    """
    del generator
    check_inputs(maps, variant=variant, tokens=tokens)
    targets = {name: _constant(attention, variant, tokens) for name, attention in maps.items()}
    return sum_of_distances(maps, targets, variant=variant)


def _constant(attention: AttentionMap, variant: Variant, tokens: int) -> Tensor | float:
    queries = attention.probabilities.shape[2]
    if variant == "mean":
        return 1 / tokens
    if variant == "notebook":
        return 1 / queries
    # Rows without a target are masked later; 1 keeps them from dividing by zero.
    entries = queries * attention.valid.sum(dim=1).clamp(min=1)
    return 1 / entries[:, None, None, None]
