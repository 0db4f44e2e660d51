r"""Subspaces of text rows and of values: what an edit must not touch, and rotations that keep lengths.

A change of weights :math:`\Delta = B N^\top`, with the orthonormal columns of :math:`N` orthogonal to every retained
row :math:`r`, moves none of them: :math:`\Delta r = B (N^\top r) = 0`. SPEED, DP and SepME are built on it. In practice
rows are nearly dependent, so a tolerance decides which directions count as retained; `NullSpace.leakage` bounds what
the dropped ones let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer.errors import ConceptError, RecipeError, SelectorError

Determinant = Literal["free", "smallest", "column"]
"""What to do about a reflection: leave it; make it a rotation along the smallest singular vector, which costs least; or
negate the last column, as OCE's published code does, which turns one arbitrary unit around."""

_DEPENDENT = 1e-10
_ROUNDING = 1e-6
_INEXACT = 1e-3


@dataclass(frozen=True, kw_only=True)
class NullSpace:
    r"""The directions that retained rows leave free.

    Args:
        basis: (dim, free) orthonormal columns :math:`N`.
        rank: Directions that are retained, ``dim - free``.
        leakage: The largest singular value that was dropped. Every retained row has :math:`\lVert N^\top r \rVert` of
            at most this, so an edit :math:`B N^\top` moves what the layer answers to it by at most
            :math:`\lVert B \rVert_2` times this.
    """

    basis: Float[Tensor, "dim free"]
    rank: int
    leakage: float

    @property
    def projector(self) -> Float[Tensor, "dim dim"]:
        r"""The projector :math:`P = N N^\top` onto the free directions."""
        return self.basis @ self.basis.T


def null_space(rows: Float[Tensor, "n dim"], *, tolerance: float, max_rank: int | None = None) -> NullSpace:
    r"""Find the directions that rows leave free.

    Args:
        rows: Retained rows; none leave everything free.
        tolerance: Singular values below this share of the rows' Frobenius norm count as zero. Its square is a share of
            the energy: an eigenvalue of :math:`\operatorname{mean} r r^\top` over the mean :math:`\lVert r \rVert^2`.
        max_rank: Retain at most this many directions, the strongest.

    Raises:
        RecipeError: If nothing is free.

    Example:
        >>> null_space(torch.tensor([[3.0, 0.0, 0.0], [1.0, 1.0, 0.0]]), tolerance=1e-9).projector.round(decimals=6)
        tensor([[0., 0., 0.],
                [0., 0., 0.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    rows = rows.double()
    dim = rows.shape[1]
    _, values, right = torch.linalg.svd(rows, full_matrices=True)
    rank = int((values > tolerance * torch.linalg.vector_norm(values)).sum())
    rank = rank if max_rank is None else min(rank, max_rank)
    if rank >= dim:
        raise RecipeError(
            f"retaining {len(rows)} rows leaves none of the text's {dim} directions free; at most {dim - 1} "
            "independent rows fit: retain fewer, or raise the tolerance."
        )
    leakage = float(values[rank]) if rank < len(values) else 0.0
    return NullSpace(basis=right[rank:].T, rank=rank, leakage=leakage)


def orthonormal_basis(rows: Float[Tensor, "n dim"], *, tolerance: float = 1e-5) -> Float[Tensor, "dim rank"]:
    """Return orthonormal columns that span the rows.

    Args:
        rows: Any rows, dependent ones too. Their lengths matter for the tolerance only.
        tolerance: Singular values below this share of the Frobenius norm count as zero. The default is above the
            rounding of float32, in which text encoders compute: twice the same row is one direction.
    """
    _, values, right = torch.linalg.svd(rows.double(), full_matrices=False)
    return right[values > tolerance * torch.linalg.vector_norm(values)].T


def procrustes(matrix: Float[Tensor, "n n"], *, determinant: Determinant = "free") -> Float[Tensor, "n n"]:
    r"""Return the orthogonal :math:`R` with the largest :math:`\operatorname{tr}(R^\top M)`.

    With :math:`M = U \Sigma V^\top` it is :math:`R = U V^\top`. When it must be a rotation, the best one is
    :math:`U \operatorname{diag}(1, \dots, 1, -1) V^\top`, which turns the direction that :math:`M` cares least about.

    Args:
        matrix: :math:`M`.
        determinant: What to do when :math:`\det R = -1`, see `Determinant`.
    """
    left, _, right = torch.linalg.svd(matrix.double())
    rotation = left @ right
    if determinant == "free" or float(torch.linalg.slogdet(rotation).sign) > 0:
        return rotation
    if determinant == "smallest":
        return rotation - 2 * torch.outer(left[:, -1], right[-1])
    return torch.cat([rotation[:, :-1], -rotation[:, -1:]], dim=1)


def double_projection(
    targets: Float[Tensor, "n dim"], safe: Float[Tensor, "m dim"], *, free: NullSpace
) -> Float[Tensor, "dim dim"]:
    r"""Return the map of the text that sends targets to their shadows in a safe subspace, and retained rows to zero.

    With targets as columns of :math:`C`, their projections :math:`C^* = S (S^\top S)^+ S^\top C` onto safe rows and
    :math:`X = N^\top C`, it is :math:`D = (C^* - C) X^+ N^\top`; for one target
    :math:`(c^* - c) x^\top N^\top / \lVert x \rVert^2`. Then :math:`D C = C^* - C` and :math:`D r = 0`, both exactly.

    Args:
        targets: Rows to send away.
        safe: Rows that span where they may go.
        free: What retained rows leave free.

    Raises:
        ConceptError: If retained rows leave no direction to move one of the targets along.
    """
    columns = targets.double().T
    span = orthonormal_basis(safe)
    away = span @ (span.T @ columns) - columns
    seen = free.basis.T @ columns
    # Twice the same target, but for rounding, is one; a target inside the retained span cannot be moved at all.
    inverse = torch.linalg.pinv(seen, atol=_ROUNDING * float(torch.linalg.matrix_norm(columns, 2)), rtol=0.0)
    if float((away @ inverse @ seen - away).norm()) > _INEXACT * float(away.norm()):
        raise ConceptError(
            f"the {free.rank} retained directions leave no direction to move each of the {len(targets)} target rows "
            "along; retain fewer, or read the target in fewer prompts."
        )
    return away @ inverse @ free.basis.T


def constrained_ridge(
    targets: Float[Tensor, "n dim"],
    sources: Float[Tensor, "n dim"],
    *,
    free: NullSpace,
    invariant: Float[Tensor, "m dim"],
    ridge: float,
    invariant_ridge: float = 0.0,
) -> Float[Tensor, "dim dim"]:
    r"""Return the ridge solution among the maps that move neither retained nor invariant rows.

    With :math:`T = \operatorname{mean} t t^\top`, :math:`A = \operatorname{mean} a t^\top` and the columns of
    :math:`C_2` the invariant rows, SPEED's :math:`D = (A - T) P Q M`, where :math:`P = N N^\top`,
    :math:`M = (T P + \lambda_r I)^{-1}` and :math:`Q = I - M C_2 (C_2^\top P M C_2 + \lambda_c I)^{-1} C_2^\top P`. It
    is computed in the coordinates of :math:`N`, where :math:`H = N^\top T N + \lambda_r I` is positive:

    .. math:: D = (A - T) N \big(H^{-1} - H^{-1} c\, (c^\top H^{-1} c + \lambda_c I)^{-1} c^\top H^{-1}\big) N^\top,
        \qquad c = N^\top C_2 .

    Args:
        targets: Rows :math:`t` to replace.
        sources: The rows :math:`a` that should answer in their place, as many.
        free: What retained rows leave free.
        invariant: Rows that must not move either; may be none.
        ridge: :math:`\lambda_r`, more than 0.
        invariant_ridge: :math:`\lambda_c`; with 0 the invariant rows do not move at all.

    Raises:
        RecipeError: If the ridge is not positive.
    """
    if not ridge > 0:
        raise RecipeError(f"ridge: got {ridge}; wanted more than 0.")
    targets, sources, basis = targets.double(), sources.double(), free.basis
    drift = (sources - targets).T @ targets / len(targets)
    inner = basis.T @ (targets.T @ (targets @ basis)) / len(targets)
    factor = torch.linalg.cholesky(inner + ridge * torch.eye(len(inner), dtype=inner.dtype, device=inner.device))
    part = torch.cholesky_solve(basis.T, factor)
    held = basis.T @ invariant.double().T
    if invariant_ridge == 0:
        # Exact constraints depend on the span alone. Rows that are alike, or retained already, add nothing but noise.
        left, values, _ = torch.linalg.svd(held, full_matrices=False)
        held = left[:, values > _DEPENDENT * torch.linalg.vector_norm(invariant.double())]
    if held.shape[1]:
        solved = torch.cholesky_solve(held, factor)
        gram = held.T @ solved
        gram = gram + invariant_ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        part = part - solved @ torch.linalg.solve(gram, held.T @ part)
    return drift @ basis @ part


def centroids(
    rows: Float[Tensor, "n dim"], count: int, *, generator: torch.Generator, rounds: int = 25
) -> Float[Tensor, "count dim"]:
    """Return the centres of clusters of rows, by k-means from a seeded start.

    Args:
        rows: At least ``count`` rows.
        count: Number of clusters.
        generator: Chooses the rows to start from.
        rounds: At most so many rounds; it stops when no row changes its cluster.

    Raises:
        SelectorError: If there are fewer rows than clusters.
    """
    if not 1 <= count <= len(rows):
        raise SelectorError(f"clusters: got {count} for {len(rows)} rows; wanted 1 to {len(rows)}.")
    centres = rows[torch.randperm(len(rows), generator=generator)[:count]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(rows, centres).argmin(dim=1)
        # A cluster that lost all its rows stays where it is.
        means = [rows[nearest == i].mean(dim=0) if bool((nearest == i).any()) else centres[i] for i in range(count)]
        moved = torch.stack(means)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
