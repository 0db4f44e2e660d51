"""The closed-form attack: which text rows make edited projections say what the original ones said of a concept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aizheimer.data.rows import RowPairs


def undoing(weights: Mapping[str, Tensor], original: Mapping[str, Tensor], *, damping: float) -> Tensor:
    r"""Return the map of the text after which edited projections answer as the original ones did.

    Args:
        weights: Edited weights :math:`W_l`.
        original: Original weights :math:`W^0_l` of the same names.
        damping: :math:`\mu` as a share of the mean eigenvalue of :math:`\sum_l W_l^\top W_l`.

    Returns:
        (dim, dim) :math:`(\mu I + \sum_l W_l^\top W_l)^{-1} \sum_l W_l^\top W^0_l`.
    """
    gram = torch.stack([weight.T @ weight for weight in weights.values()]).sum(dim=0)
    cross = torch.stack([weight.T @ original[name] for name, weight in weights.items()]).sum(dim=0)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + damping * gram.trace() / len(gram) * eye, cross)


def revived(weights: Mapping[str, Tensor], original: Mapping[str, Tensor], *, found: Tensor, pairs: RowPairs) -> float:
    """Return how much of the concept found rows bring back.

    Args:
        weights: Edited weights.
        original: Original weights.
        found: (n, dim) the rows that were found for the target's.
        pairs: The target's rows, and the anchor's.

    Returns:
        1 when edited weights answer to found rows all that the original ones answer to the concept's; 0 when they come
        no nearer to it than the anchor is; negative when they stay farther away.
    """
    missing = whole = 0.0
    for name, weight in original.items():
        missing += float((found @ weights[name].T - pairs.keys @ weight.T).square().sum())
        whole += float(((pairs.sources - pairs.keys) @ weight.T).square().sum())
    return 1 - (missing / whole) ** 0.5 if whole > 0 else 1.0
