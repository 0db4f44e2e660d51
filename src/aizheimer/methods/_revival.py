"""The closed-form attack: which text rows make edited projections say what the original ones said of a concept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aizheimer.data.rows import RowPairs

BISECTIONS = 60
"""Of the firmness that keeps a shift in its ball; it is looked for over 22 orders of magnitude."""


def undoing(weights: Mapping[str, Tensor], original: Mapping[str, Tensor], *, damping: float) -> Tensor:
    r"""Return the map of the text after which edited projections answer as the original ones did.

    Args:
        weights: Edited weights :math:`W_l`.
        original: Original weights :math:`W^0_l` of the same names.
        damping: :math:`\mu` as a share of the mean eigenvalue of :math:`\sum_l W_l^\top W_l`.

    Returns:
        (dim, dim) :math:`(\mu I + \sum_l W_l^\top W_l)^{-1} \sum_l W_l^\top W^0_l`.
    """
    gram, cross = _normal(weights, original)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + damping * gram.trace() / len(gram) * eye, cross)


def _normal(weights: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\sum_l W_l^\top W_l` and :math:`\sum_l W_l^\top W^0_l`, both (dim, dim)."""
    gram = torch.stack([weight.T @ weight for weight in weights.values()]).sum(dim=0)
    return gram, torch.stack([weight.T @ original[name] for name, weight in weights.items()]).sum(dim=0)


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


def worst_shifts(
    weights: Mapping[str, Tensor], original: Mapping[str, Tensor], *, rows: Tensor, radius: float
) -> Tensor:
    r"""Return the shifts of rows that bring most back, none longer than a share of its row.

    For each row :math:`e` the exact minimum of
    :math:`\sum_l \lVert W_l (e + \delta) - W^0_l e \rVert^2` over :math:`\lVert \delta \rVert \le r \lVert e \rVert`:
    what a soft prompt in that ball can do at the most to keys and values, without the network.

    Args:
        weights: Edited weights :math:`W_l`.
        original: Original weights :math:`W^0_l` of the same names.
        rows: (n, dim) the concept's rows.
        radius: :math:`r`.

    Returns:
        (n, dim) the shifts.
    """
    gram, cross = _normal(weights, original)
    curvature, basis = torch.linalg.eigh(gram)
    slope, bound = rows @ (cross - gram).T @ basis, radius * rows.norm(dim=1)
    floor = curvature[-1] * torch.finfo(curvature.dtype).eps  # where the weights answer nothing, nothing is gained

    def shift(firmness: Tensor) -> Tensor:
        return slope / (curvature.clamp_min(0) + floor + firmness[:, None])

    low, high = (torch.full_like(bound, float(end)) for end in (floor, curvature[-1] * 1e6))
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        far = shift(middle).norm(dim=1) > bound
        low, high = torch.where(far, middle, low), torch.where(far, high, middle)
    inside = shift(torch.zeros_like(bound)).norm(dim=1) <= bound
    return shift(torch.where(inside, torch.zeros_like(bound), high)) @ basis.T


def revivable(
    weights: Mapping[str, Tensor], original: Mapping[str, Tensor], *, pairs: RowPairs, radius: float
) -> float:
    r"""Return how much of the concept `worst_shifts` of its rows bring back, as `revived` counts it.

    An edit :math:`W_l = W^0_l + a_l g^\top` is undone by a shift of length :math:`\lvert g \cdot e \rvert / \lVert g
    \rVert`: a short :math:`g`, which a ridge asks for, makes it far.

    Args:
        weights: Edited weights.
        original: Original weights of the same names.
        pairs: The target's rows, and the anchor's.
        radius: The longest shift, in lengths of its row.
    """
    found = pairs.keys + worst_shifts(weights, original, rows=pairs.keys, radius=radius)
    return revived(weights, original, found=found, pairs=pairs)
