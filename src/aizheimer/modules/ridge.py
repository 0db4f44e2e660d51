r"""Ridge regression of linear projections on text rows: the solver behind the closed-form methods.

Given text rows :math:`k_i` (keys), what a projection should answer to them :math:`v_i` (values) and weights
:math:`\alpha_i`, the projection that does so while it stays near :math:`W_0` minimises
:math:`\sum_i \alpha_i \lVert W k_i - v_i \rVert^2 + \lambda \lVert W - W_0 \rVert_F^2`. With
:math:`N = \sum_i \alpha_i v_i k_i^\top` and :math:`G = \sum_i \alpha_i k_i k_i^\top`,

.. math:: W = (N + \lambda W_0)(G + \lambda I)^{-1} = W_0 + (N - W_0 G)(G + \lambda I)^{-1}.

The second form is the one computed: nothing moves, to the last bit, when :math:`N = W_0 G`.

The values are nearly always what the projection answers to *another* row, :math:`v_i = W s_i`. Then :math:`N = W C`
with :math:`C = \sum_i \alpha_i s_i k_i^\top`, and both moments are of the text alone: they are summed once, factored
once and serve every layer (`text_map`). UCE, RECE and MACE differ in rows, sources and weights only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aizheimer.errors import RecipeError, SelectorError

_PIVOT_TOLERANCE = 1e-13
"""Least square of a Cholesky pivot, relative to the largest, that still counts as not singular in float64."""


@dataclass(frozen=True, kw_only=True)
class RidgeSums:
    r"""The sums of a ridge problem, in float64. Sums of parts of the data add up.

    Args:
        numerator: (out, dim) :math:`N = \sum \alpha\, v k^\top`; of the text alone (dim, dim) :math:`C`.
        gram: (dim, dim) :math:`G = \sum \alpha\, k k^\top`.
        count: Rows that were summed, whatever their weights: what `mean` divides by.

    Example:
        >>> k, v = torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> sums = RidgeSums.of(k, v) + RidgeSums.of(k, v, weight=3.0)
        >>> sums.gram[0, 0].item(), sums.count
        (4.0, 4)
    """

    numerator: Float[Tensor, "out dim"]
    gram: Float[Tensor, "dim dim"]
    count: int

    @classmethod
    def of(
        cls,
        keys: Float[Tensor, "n dim"],
        values: Float[Tensor, "n out"],
        *,
        weight: float = 1.0,
        bias: Float[Tensor, " out"] | None = None,
    ) -> RidgeSums:
        """Sum up rows.

        Args:
            keys: Text rows.
            values: What the layer should answer to each, or, for sums of the text alone, the rows in whose place they
                should answer.
            weight: The weight of each of these rows, 0 or more.
            bias: The layer's bias when the values contain it. It stays in the layer, so it is taken off here: with it,
                even pure preservation would move the weights.

        Raises:
            SelectorError: If keys and values are not as many.
        """
        if len(keys) != len(values):
            raise SelectorError(f"ridge sums: got {len(keys)} keys and {len(values)} values; wanted as many of each.")
        keys, values = keys.double(), values.double()
        if bias is not None:
            values = values - bias.double()
        return cls(numerator=weight * values.T @ keys, gram=weight * keys.T @ keys, count=len(keys))

    @classmethod
    def keep(cls, rows: Float[Tensor, "n dim"], *, weight: float = 1.0) -> RidgeSums:
        """Sum up rows of the text that should go on answering as they do: each in its own place."""
        return cls.of(rows, rows, weight=weight)

    def __add__(self, other: RidgeSums) -> RidgeSums:
        return RidgeSums(
            numerator=self.numerator + other.numerator,
            gram=self.gram + other.gram,
            count=self.count + other.count,
        )

    def times(self, factor: float) -> RidgeSums:
        """Return the sums with every weight multiplied; the count stays."""
        return RidgeSums(numerator=factor * self.numerator, gram=factor * self.gram, count=self.count)

    def mean(self) -> RidgeSums:
        """Return the sums per row, so that a weight means the same whatever the number of rows."""
        return self.times(1 / max(self.count, 1))

    def through(self, weight: Float[Tensor, "out dim"]) -> RidgeSums:
        """Turn sums of the text alone into those of a layer that has this weight; the Gram matrix is shared."""
        return RidgeSums(numerator=weight.double() @ self.numerator, gram=self.gram, count=self.count)


def solve_ridge(weight: Float[Tensor, "out dim"], sums: RidgeSums, *, ridge: float) -> Float[Tensor, "out dim"]:
    r"""Return the weights that answer to the keys with the values, or as near as the ridge allows.

    Args:
        weight: :math:`W_0`, what the ridge pulls to.
        sums: The layer's sums.
        ridge: :math:`\lambda`, 0 or more, in the unit of the Gram matrix.

    Returns:
        :math:`(N + \lambda W_0)(G + \lambda I)^{-1}`, float64.

    Raises:
        RecipeError: If the ridge is negative, or 0 and the rows leave directions free.
    """
    weight = weight.double()
    return weight + _right_divide(sums.numerator - weight @ sums.gram, sums.gram, ridge)


def text_map(sums: RidgeSums, *, ridge: float) -> Float[Tensor, "dim dim"]:
    r"""Solve once for all layers.

    Args:
        sums: Sums of the text alone, :math:`(C, G)`.
        ridge: :math:`\lambda`.

    Returns:
        :math:`D = (C - G)(G + \lambda I)^{-1}`: every layer's new weights are :math:`W + W D`. A text row :math:`e`
        then reads as :math:`e + D e` did.

    Raises:
        RecipeError: As `solve_ridge`.
    """
    return _right_divide(sums.numerator - sums.gram, sums.gram, ridge)


def _right_divide(left: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """Return ``left (gram + ridge I)^-1`` by Cholesky."""
    if not ridge >= 0:
        raise RecipeError(f"ridge: got {ridge}; wanted 0 or more.")
    dim = len(gram)
    matrix = (gram + gram.T) / 2 + ridge * torch.eye(dim, dtype=gram.dtype, device=gram.device)
    factor, info = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal().square()
    if int(info) or not bool(pivots.min() > _PIVOT_TOLERANCE * pivots.max()):
        rank = int(torch.linalg.matrix_rank(matrix, hermitian=True))
        raise RecipeError(
            f"ridge: got {ridge:g}, and the rows span only {rank} of {dim} directions, so the weights are not "
            "determined; raise the ridge, or retain more."
        )
    return torch.cholesky_solve(left.T, factor).T


def projection_weights(projections: Mapping[str, nn.Module]) -> dict[str, Float[Tensor, "out dim"]]:
    """Return copies of the weights of projections, by parameter name in the denoiser.

    Biases are left out on purpose: a closed form replaces what the projection adds to its bias. What should be
    answered instead is another row's :math:`W s + b`, and :math:`W' k + b = W s + b` wherever :math:`W' k = W s`.

    Args:
        projections: Linear layers by name, as `Backbone.text_projections` gives.

    Returns:
        Float64 on the CPU, in the same order.

    Raises:
        SelectorError: If a projection is not a plain linear layer.
    """
    found = {}
    for name, projection in projections.items():
        if not isinstance(projection, nn.Linear):
            raise SelectorError(f"{name} is a {type(projection).__name__}, wanted a Linear; take adapters off first.")
        found[f"{name}.weight"] = projection.weight.detach().cpu().double()
    return found
