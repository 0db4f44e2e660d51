r"""Write a change of weights as products of thin matrices, :math:`\Delta \approx U D`, and say what that loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aizheimer.errors import EditError

if TYPE_CHECKING:
    from aizheimer.edits.edit import Edit

EXACT = 1e-5
"""Relative error below which a product is the change itself: what float32 rounds away."""
_NEGLIGIBLE = 1e-7
"""Singular values below this share of the largest are rounding."""


@dataclass(frozen=True, eq=False)
class ThinChange:
    r"""The change of one layer's weight as a product :math:`U D`.

    Args:
        module: ``"<part>.<name in that network>"``.
        down: :math:`D`; a convolution's has its kernel.
        up: :math:`U`; a convolution's has a 1 x 1 kernel.
        lost: :math:`\lVert \Delta - U D \rVert^2`, squared Frobenius norm.
        size: :math:`\lVert \Delta \rVert^2`.
    """

    module: str
    down: Float[Tensor, "rank inputs ..."]
    up: Float[Tensor, "outputs rank ..."]
    lost: float
    size: float

    @property
    def rank(self) -> int:
        """Columns of U."""
        return self.up.shape[1]

    @property
    def error(self) -> float:
        """Relative error: the root of ``lost / size``."""
        return (self.lost / self.size) ** 0.5 if self.size > 0 else 0.0

    @property
    def product(self) -> Float[Tensor, "outputs inputs ..."]:
        """U D, in the shape of the weight."""
        return (self.up.flatten(1) @ self.down.flatten(1)).reshape(len(self.up), *self.down.shape[1:])

    def widened(self, rank: int) -> ThinChange:
        """Return the same product with as many columns as ``rank``, the new ones zero."""
        more = rank - self.rank
        if more <= 0:
            return self
        down = torch.cat([self.down, self.down.new_zeros(more, *self.down.shape[1:])])
        up = torch.cat([self.up, self.up.new_zeros(len(self.up), more, *self.up.shape[2:])], dim=1)
        return ThinChange(self.module, down, up, lost=self.lost, size=self.size)


@dataclass(frozen=True, eq=False)
class ThinEdit:
    """An edit as products, one for each layer that it changes.

    Args:
        changes: By layer, all of one rank.
        left_out: Squared norm by the name of each change that no product can hold: biases, norms, embeddings.
    """

    changes: tuple[ThinChange, ...]
    left_out: Mapping[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Of every product."""
        return self.changes[0].rank

    @property
    def error(self) -> float:
        """Relative error over the whole edit, with what was left out."""
        lost = sum(change.lost for change in self.changes) + sum(self.left_out.values())
        size = sum(change.size for change in self.changes) + sum(self.left_out.values())
        return (lost / size) ** 0.5 if size > 0 else 0.0

    @property
    def exact(self) -> bool:
        """Whether nothing is lost but what float32 rounds away."""
        return self.error <= EXACT


def thin_edit(edit: Edit, networks: Mapping[str, nn.Module], *, rank: int, partial: bool = False) -> ThinEdit:
    """Return an edit of weights as products of at most ``rank`` columns, its strength included.

    The best product of each rank, by singular values: exact if the change has no more of them. All have as many columns
    as the largest needs, so that readers that take one scale for a whole file read every one right.

    Args:
        edit: Without a hook.
        networks: Of the base, by part.
        rank: Most columns of a product.
        partial: Leave out what no product can hold, and count it in the error, rather than refuse.

    Raises:
        EditError: If ``rank`` is less than 1, or biases, norms or embeddings are changed and ``partial`` is false.
    """
    if rank < 1:
        raise EditError(f"rank: got {rank}, wanted 1 or more; 32 keeps most edits")
    strength = edit.provenance.strength
    left_out: dict[str, float] = {}
    changes: list[ThinChange] = []
    for name, delta in edit.deltas.items():
        change = strength * delta
        if is_matrix(name, networks):
            changes.append(_thin(name.removesuffix(".weight"), change, rank=rank))
        else:
            left_out[name] = float(change.double().square().sum())
    if left_out and not (partial and changes):
        raise EditError(_refusal(left_out, of=len(edit.deltas)))
    common = max(change.rank for change in changes)
    return ThinEdit(tuple(change.widened(common) for change in changes), left_out)


def is_matrix(name: str, networks: Mapping[str, nn.Module]) -> bool:
    """Whether a parameter, ``"<part>.<name>"``, is the weight of a linear layer or of an ungrouped convolution."""
    part, _, parameter = name.partition(".")
    module = networks[part].get_submodule(parameter.rpartition(".")[0])
    linear = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    return linear and name.endswith(".weight")


def _thin(module: str, change: Tensor, *, rank: int) -> ThinChange:
    """Return the best product for one weight.

    From the eigenvectors of the smaller Gram matrix in float64: the singular vectors of 10240 x 1280 at the cost of
    1280 x 1280, and more exact than an SVD in float32.
    """
    matrix = change.double().flatten(1)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    largest = float(values[-1].clamp(min=0).sqrt())
    kept = [i for i in _descending(values) if float(values[i].clamp(min=0).sqrt()) > _NEGLIGIBLE * largest][:rank]
    basis = vectors[:, kept or [-1]]
    other = basis.T @ wide
    # Both factors of one size, so that none of them overflows or vanishes in half precision.
    balance = other.norm(dim=1).clamp(min=1e-30).sqrt()
    left, right = basis * balance, other / balance[:, None]
    up, down = (left, right) if wide is matrix else (right.T, left.T)
    up, down = up.float(), down.float()
    lost = float((matrix - up.double() @ down.double()).square().sum())
    kernel = change.shape[2:]
    return ThinChange(
        module,
        down.reshape(len(down), change.shape[1], *kernel).contiguous(),
        up.reshape(*up.shape, *[1] * len(kernel)).contiguous(),
        lost=lost,
        size=float(matrix.square().sum()),
    )


def _descending(values: Tensor) -> Iterator[int]:
    return iter(range(len(values) - 1, -1, -1))


def _refusal(left_out: Mapping[str, float], *, of: int) -> str:
    kinds = "text encoder's biases, norms" if all(n.startswith("text_encoder") for n in left_out) else "biases, norms"
    example = max(left_out, key=lambda name: left_out[name])
    return (
        f"{len(left_out)} of the {of} changes are {kinds} or embeddings ('{example}'), which no LoRA can hold; export "
        "as delta, diffusers or single-file, or leave them out with --partial (the printed error counts them)"
    )
