"""The result of unlearning: a change of weights, or a runtime behaviour, that can be put on and taken off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aizheimer.backbones.base import Part, backbone_for
from aizheimer.backbones.networks import TEXT_ENCODERS
from aizheimer.edits.apply import NAMES, PARTS, Applied, apply_edit
from aizheimer.edits.export import Exported, export_edit
from aizheimer.edits.hook import Hook, WeightHook, describe
from aizheimer.edits.provenance import TEXT_FIELDS, Provenance
from aizheimer.edits.storage import save_edit
from aizheimer.errors import EditError

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


@dataclass(frozen=True)
class Edit:
    r"""Changes of weights, :math:`W' = W + s\,\Delta`, or a runtime behaviour, with their provenance.

    Args:
        deltas: :math:`\Delta` by parameter name (``"unet.<name in the denoiser>"`` or ``"text_encoder.<name>"``),
            float32, changed tensors only. A second text encoder is ``text_encoder_2``.
        provenance: Where it comes from; its ``strength`` is :math:`s`. It has a ``text_fingerprint`` if the text
            encoder is changed, and a ``text_fingerprint_2`` if the second one is.
        hook: A behaviour while drawing, which no weights can express; None for changes of weights only.

    Raises:
        EditError: If a tensor is of another part or type, or the text encoder's fingerprint is missing.

    Example:
        >>> edit = load_edit("runs/santa")  # doctest: +SKIP
        >>> with edit.scale(0.5).applied(pipe):  # doctest: +SKIP
        ...     pipe("Santa Claus in noto style")
    """

    deltas: Mapping[str, Tensor]
    provenance: Provenance
    hook: Hook | None = None

    def __post_init__(self) -> None:
        """Refuse names of no part that can be edited; make the mapping read-only."""
        for name, delta in self.deltas.items():
            if name.partition(".")[0] not in PARTS or delta.dtype != torch.float32:
                wanted = " or ".join(f"{part}.<parameter>" for part in PARTS)
                raise EditError(f"edit tensor '{name}' is {delta.dtype}; wanted float32 changes named {wanted}")
        texts = {name.partition(".")[0] for name in self.deltas} & TEXT_FIELDS.keys()
        if unnamed := sorted(texts - self.provenance.text_fingerprints.keys()):
            raise EditError(
                f"this edit changes the {NAMES[unnamed[0]]} and does not say which; "
                f"set {TEXT_FIELDS[unnamed[0]]}=module_fingerprint(pipe.{unnamed[0]}) in its provenance"
            )
        object.__setattr__(self, "deltas", MappingProxyType(dict(self.deltas)))

    @classmethod
    def between(
        cls,
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
        *,
        provenance: Provenance,
        part: Part = "unet",
    ) -> Edit:
        """Return the edit that takes parameters from ``before`` to ``after``; unchanged tensors are left out.

        Args:
            before: Original values by name in the network; of all text encoders, by ``<network>.<name>``.
            after: Edited values of the same names.
            provenance: Where the edit comes from.
            part: What they are of.
        """
        prefix = "" if part == TEXT_ENCODERS else f"{part}."
        changes = {name: after[name].detach().cpu().float() - before[name].detach().cpu().float() for name in before}
        return cls({prefix + name: delta for name, delta in changes.items() if bool((delta != 0).any())}, provenance)

    @property
    def is_noop(self) -> bool:
        """Whether applying it changes nothing."""
        return (not self.deltas and self.hook is None) or self.provenance.strength == 0

    @property
    def mergeable(self) -> bool:
        """Whether weights alone can hold it, so that it can be written into a checkpoint."""
        return self.hook is None or (isinstance(self.hook, WeightHook) and not self.hook.gated)

    @property
    def size_bytes(self) -> int:
        """Bytes of its tensors, those of the hook included."""
        tensors = [*self.deltas.values(), *(self.hook.tensors.values() if self.hook is not None else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over all that it does to its base: equal for two edits that draw the same pictures."""
        digest = hashlib.sha256(f"{self.provenance.base_fingerprint} {self.provenance.strength!r}\n".encode())
        for name, delta in sorted(self.deltas.items()):
            digest.update(f"{name} {tuple(delta.shape)}\n".encode())
            digest.update(delta.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        if self.hook is not None:
            digest.update(json.dumps(describe(self.hook, self.provenance.strength), sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def scale(self, factor: float) -> Edit:
        """Return the same edit at ``factor`` times its strength; 0 changes nothing, less exaggerates the concept."""
        return self.scale_to(self.provenance.strength * factor)

    def scale_to(self, strength: float) -> Edit:
        """Return the same edit at this strength, whatever its own is."""
        provenance = Provenance.model_validate(self.provenance.model_dump() | {"strength": strength})
        return Edit(self.deltas, provenance, self.hook)

    def merged_state(self, pipe: DiffusionPipeline, *, check_base: bool = True) -> dict[str, Tensor]:
        """Return the edited values of the changed parameters, by the names of ``deltas``; the pipeline stays as it is.

        Raises:
            EditError: If a hook is part of the edit that weights cannot hold, or the base is another one.
        """
        if isinstance(self.hook, WeightHook) and self.hook.gated:
            raise EditError(
                f"an edit of the method {self.provenance.method} acts on each prompt as far as it is about the concept "
                "and cannot be merged into weights; keep it, or merge as_weights(pipe), which acts on all alike "
                "(gamma = 1) and costs other concepts more"
            )
        if self.hook is not None:
            return self.as_weights(pipe).merged_state(pipe, check_base=check_base)
        with self.applied(pipe, check_base=check_base):
            modules = backbone_for(pipe).networks
            split = {name: name.split(".", 1) for name in self.deltas}
            return {name: modules[part].get_parameter(own).detach().clone() for name, (part, own) in split.items()}

    def as_weights(self, pipe: DiffusionPipeline) -> Edit:
        """Return the edit as changes of weights alone; one that is gated by the prompt acts on all prompts alike then.

        Args:
            pipe: The base, for its shapes; nothing of it is changed.

        Raises:
            EditError: If weights cannot express its hook.
        """
        if self.hook is None:
            return self
        if not isinstance(self.hook, WeightHook):
            raise EditError(
                f"an edit of the method {self.provenance.method} acts while pictures are drawn (hook "
                f"{self.hook.name!r}) and cannot be merged into weights; keep the edit and apply it at run time"
            )
        deltas = dict(self.deltas)
        for name, change in self.hook.changes(backbone_for(pipe).denoiser).items():
            deltas[f"unet.{name}"] = deltas.get(f"unet.{name}", torch.zeros_like(change)) + change
        extra = self.provenance.extra | {"as_weights": self.hook.name}
        return Edit(deltas, self.provenance.model_copy(update={"extra": extra}))

    def apply_to(self, pipe: DiffusionPipeline, *, check_base: bool = True) -> Applied:
        """Change a pipeline in place: its weights, and how it draws if the edit has a hook.

        Args:
            pipe: The pipeline the edit was made for.
            check_base: Refuse a pipeline whose weights are not those the edit was made for. Edits that are already
                applied do not count, so edits of one base stack.

        Returns:
            A handle; its ``remove()`` puts the exact old bits back.

        Raises:
            EditError: If it was made for another base, or names tensors this one does not have.
        """
        return apply_edit(pipe, self.deltas, hook=self.hook, provenance=self.provenance, check_base=check_base)

    @contextmanager
    def applied(self, pipe: DiffusionPipeline, *, check_base: bool = True) -> Iterator[DiffusionPipeline]:
        """Change a pipeline for the length of a ``with`` block; see `apply_to`."""
        handle = self.apply_to(pipe, check_base=check_base)
        try:
            yield pipe
        finally:
            handle.remove()

    def save(self, folder: str | Path) -> Path:
        """Write ``edit.safetensors`` and ``edit.json`` into ``folder`` and return it."""
        return save_edit(self.deltas, self.provenance, hook=self.hook, folder=Path(folder))

    def export(self, pipe: DiffusionPipeline, path: str | Path, *, format: str, **options: Any) -> Exported:
        """Write the edit as something that other programs load; see `aizheimer.edits.export.export_edit`.

        Args:
            pipe: The base.
            path: The file or folder to write.
            format: delta, lora-peft, lora-kohya, diffusers, single-file or text-encoder.
            **options: ``rank``, ``partial``, ``ungated`` and ``check_base``.

        Example:
            >>> edit.export(pipe, "santa.safetensors", format="lora-kohya", rank=16).error  # doctest: +SKIP
        """
        return export_edit(self, pipe, path, format=format, **options)
