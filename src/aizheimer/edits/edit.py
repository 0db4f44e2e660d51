"""The result of unlearning: a change of weights that can be put on and taken off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aizheimer.edits.apply import Applied, apply_deltas
from aizheimer.edits.provenance import Provenance
from aizheimer.edits.storage import save_edit
from aizheimer.errors import EditError

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

PREFIX = "unet."


@dataclass(frozen=True)
class Edit:
    r"""Changes of a denoiser's weights, :math:`W' = W + s\,\Delta`, with their provenance.

    Args:
        deltas: :math:`\Delta` by parameter name (``"unet.<name in the denoiser>"``), float32, changed tensors only.
        provenance: Where it comes from; its ``strength`` is :math:`s`.

    Example:
        >>> edit = load_edit("runs/santa")  # doctest: +SKIP
        >>> with edit.scale(0.5).applied(pipe):  # doctest: +SKIP
        ...     pipe("Santa Claus in noto style")
    """

    deltas: Mapping[str, Tensor]
    provenance: Provenance

    def __post_init__(self) -> None:
        """Refuse names that are not of a denoiser; make the mapping read-only."""
        for name, delta in self.deltas.items():
            if not name.startswith(PREFIX) or delta.dtype != torch.float32:
                raise EditError(
                    f"edit tensor '{name}' is {delta.dtype}; wanted float32 changes named {PREFIX}<parameter>"
                )
        object.__setattr__(self, "deltas", MappingProxyType(dict(self.deltas)))

    @classmethod
    def between(cls, before: Mapping[str, Tensor], after: Mapping[str, Tensor], *, provenance: Provenance) -> Edit:
        """Return the edit that takes parameters from ``before`` to ``after``; unchanged tensors are left out.

        Args:
            before: Original values by name in the denoiser.
            after: Edited values of the same names.
            provenance: Where the edit comes from.
        """
        changes = {name: after[name].detach().cpu().float() - before[name].detach().cpu().float() for name in before}
        return cls({PREFIX + name: delta for name, delta in changes.items() if bool((delta != 0).any())}, provenance)

    @property
    def is_noop(self) -> bool:
        """Whether applying it changes nothing."""
        return not self.deltas or self.provenance.strength == 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the changed tensors."""
        return sum(delta.numel() * delta.element_size() for delta in self.deltas.values())

    def scale(self, factor: float) -> Edit:
        """Return the same edit at ``factor`` times its strength; 0 changes nothing, less exaggerates the concept."""
        strength = self.provenance.strength * factor
        return Edit(self.deltas, Provenance.model_validate(self.provenance.model_dump() | {"strength": strength}))

    def apply_to(self, pipe: DiffusionPipeline, *, check_base: bool = True) -> Applied:
        """Change a pipeline's weights in place.

        Args:
            pipe: The pipeline the edit was made for.
            check_base: Refuse a pipeline whose weights are not those the edit was made for. Edits that are already
                applied do not count, so edits of one base stack.

        Returns:
            A handle; its ``remove()`` puts the exact old bits back.

        Raises:
            EditError: If it was made for another base, or names tensors this one does not have.
        """
        changes = {name.removeprefix(PREFIX): delta for name, delta in self.deltas.items()}
        return apply_deltas(pipe, changes, provenance=self.provenance, check_base=check_base)

    @contextmanager
    def applied(self, pipe: DiffusionPipeline, *, check_base: bool = True) -> Iterator[DiffusionPipeline]:
        """Change a pipeline's weights for the length of a ``with`` block; see `apply_to`."""
        handle = self.apply_to(pipe, check_base=check_base)
        try:
            yield pipe
        finally:
            handle.remove()

    def save(self, folder: str | Path) -> Path:
        """Write ``edit.safetensors`` and ``edit.json`` into ``folder`` and return it."""
        return save_edit(self.deltas, self.provenance, Path(folder))
