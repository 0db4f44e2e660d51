r"""Changes of key and value projections that some prompts cannot notice: coefficients of a null space.

:math:`\Delta W = \beta A B` with the rows of :math:`B` orthonormal and orthogonal to every token embedding of the
protected prompts. Whatever :math:`A` becomes, :math:`\Delta W e = 0` for each of those embeddings :math:`e`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from aizheimer.errors import InputError


@dataclass(frozen=True)
class NullSpace:
    r"""Directions that rows have no part in.

    Args:
        basis: (m, dim) :math:`B`, orthonormal rows, float64.
        rank: Directions the rows do have a part in; ``m + rank = dim``.
        leakage: The largest :math:`\lVert B e \rVert / \lVert e \rVert` over the rows e.
        bound: :math:`\sigma_{rank+1}`, which no :math:`\lVert B e \rVert` exceeds.
    """

    basis: Tensor
    rank: int
    leakage: float
    bound: float


def null_space(rows: Tensor, *, tolerance: float) -> NullSpace:
    r"""Return the null space of rows, by singular values in float64.

    The right singular vectors with :math:`\sigma_i \le \text{tolerance} \cdot \sigma_1` are the basis. Token embeddings
    of padding are nearly collinear, so the numerical rank is far below the number of rows: a larger tolerance lets more
    prompts fit, at a leakage that is reported. For any coefficients and every row e,
    :math:`\lVert A B e\rVert \le \lVert A\rVert_2\, \sigma_{rank + 1}`.

    Args:
        rows: (rows, dim).
        tolerance: Relative to the largest singular value, in [0, 1).

    Returns:
        The basis, which may be empty, with its rank and leakage.

    References:
        Zhao et al., Separable Multi-Concept Erasure, arXiv:2402.05947 (weight decoupling; there by symbolic algebra).
    """
    wide = rows.detach().cpu().double()
    # The Gram matrix would square the condition; a QR first keeps the singular values and makes the SVD small.
    triangle = torch.linalg.qr(wide, mode="r").R if len(wide) > wide.shape[1] else wide
    _, values, right = torch.linalg.svd(triangle, full_matrices=True)
    # Rounding alone leaves singular values of about this size.
    floor = torch.finfo(torch.float64).eps * max(wide.shape)
    rank = int((values > max(tolerance, floor) * values[0]).sum())
    basis = right[rank:]
    lengths = torch.linalg.vector_norm(wide, dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    seen = torch.linalg.vector_norm(wide @ basis.T, dim=1) / lengths
    bound = float(values[rank]) if rank < len(values) else 0.0
    return NullSpace(basis, rank, float(seen.max()) if len(basis) else 0.0, bound)


def prompts_that_fit(rows: Tensor, *, tolerance: float) -> int:
    """Return how many of the first prompts leave a null space.

    Args:
        rows: (prompts, tokens, dim).
        tolerance: See `null_space`.
    """
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(null_space(rows[:middle].flatten(0, 1), tolerance=tolerance).basis) > 0
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


class NullSpaceCoefficients:
    r"""Trainable :math:`A` for some projections, added to what they compute while active.

    Args:
        denoiser: The network.
        modules: Names of linear layers that read token embeddings (``"...attn2.to_k"``).
        space: Where changes may be.
        scale: :math:`\beta`.

    Raises:
        InputError: If the space is empty or of another width.
    """

    def __init__(self, denoiser: nn.Module, modules: Sequence[str], *, space: NullSpace, scale: float) -> None:
        self.denoiser, self.modules, self.space, self.scale = denoiser, tuple(modules), space, scale
        self.on = True
        weights = {name: denoiser.get_parameter(f"{name}.weight") for name in modules}
        wrong = [name for name, weight in weights.items() if weight.shape[1] != space.basis.shape[1]]
        if wrong or len(space.basis) == 0:
            raise InputError(
                f"null-space coefficients: got a basis of {tuple(space.basis.shape)} for {wrong or 'any layer'}; "
                "wanted at least one row, as wide as the layers' inputs"
            )
        self.parameters = {
            name: Parameter(weight.new_zeros(weight.shape[0], len(space.basis))) for name, weight in weights.items()
        }

    @contextmanager
    def active(self) -> Iterator[None]:
        """Add the changes during a ``with`` block; the layers' own weights ask for no gradient in it."""
        handles = []
        try:
            for name in self.modules:
                module = self.denoiser.get_submodule(name)
                module.requires_grad_(False)
                basis = (self.scale * self.space.basis).to(self.parameters[name])
                handles.append(module.register_forward_hook(self._adding(self.parameters[name], basis)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave the changes out for the length of a ``with`` block: the frozen model."""
        self.on = False
        try:
            yield
        finally:
            self.on = True

    def changes(self, parameters: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        r"""Return :math:`\Delta W` by the weights' names, float64.

        Args:
            parameters: Other values of the coefficients; None for the present ones.
        """
        chosen = self.parameters if parameters is None else parameters
        basis = self.scale * self.space.basis
        return {f"{name}.weight": a.double() @ basis.to(a.device) for name, a in chosen.items()}

    def _adding(self, coefficients: Parameter, basis: Tensor) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self.on:
                return output
            return output + F.linear(F.linear(inputs[0], basis), coefficients)

        return hook
