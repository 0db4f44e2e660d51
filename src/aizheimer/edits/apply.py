"""Put changes on a pipeline's weights and take them off again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aizheimer.backbones.base import backbone_for
from aizheimer.edits.provenance import Provenance
from aizheimer.errors import EditError, did_you_mean

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

_ATTRIBUTE = "_aizheimer_applied"
"""Where a denoiser keeps the edits that are on it, oldest first; they come off in reverse order."""


@dataclass(eq=False)
class Applied:
    """An edit that is on a pipeline.

    Args:
        denoiser: The network whose weights were changed.
        originals: Exact old values of the changed parameters.
        base_fingerprint: The denoiser's fingerprint without any edit.
    """

    denoiser: nn.Module = field(repr=False)
    originals: dict[str, Tensor] = field(repr=False)
    base_fingerprint: str

    def remove(self) -> None:
        """Put the exact old bits back; once removed, a second call does nothing.

        Raises:
            EditError: If another edit was put on later and is still there.
        """
        active = _active(self.denoiser)
        if self not in active:
            return
        if active[-1] is not self:
            raise EditError("a later edit is still applied to this pipeline; remove that one first")
        _write(self.denoiser, self.originals)
        _set_active(self.denoiser, active[:-1])


def apply_deltas(
    pipe: DiffusionPipeline, changes: Mapping[str, Tensor], *, provenance: Provenance, check_base: bool
) -> Applied:
    """Add ``strength`` times the changes to the denoiser's parameters, in float32, and cast back to their dtype.

    Args:
        pipe: The pipeline.
        changes: Change by parameter name in the denoiser.
        provenance: Names the base they are for, and the strength.
        check_base: Refuse another base.

    Returns:
        The handle that takes them off.

    Raises:
        EditError: If the base is another one, or has no such tensors; nothing has been changed then.
    """
    backbone = backbone_for(pipe)
    denoiser = backbone.denoiser
    active = _active(denoiser)
    base = active[0].base_fingerprint if active else backbone.fingerprint()
    if check_base and base != provenance.base_fingerprint:
        made_for = f"{provenance.base_name or 'an unnamed base'} ({provenance.base_fingerprint})"
        raise EditError(
            f"this edit was made for {made_for}, this pipeline is {pipe.name_or_path or 'an unnamed base'} ({base}); "
            "load that base, or pass check_base=False"
        )
    parameters = dict(denoiser.named_parameters())
    _check_names(parameters, changes)
    chosen = changes if provenance.strength != 0 else {}
    originals = {name: parameters[name].detach().clone() for name in chosen}
    edited = {
        name: (originals[name].float() + provenance.strength * change.to(originals[name].device)).to(
            originals[name].dtype
        )
        for name, change in chosen.items()
    }
    _write(denoiser, edited)
    handle = Applied(denoiser, originals, base)
    _set_active(denoiser, (*active, handle))
    return handle


def _active(denoiser: nn.Module) -> tuple[Applied, ...]:
    return denoiser.__dict__.get(_ATTRIBUTE, ())


def _set_active(denoiser: nn.Module, handles: tuple[Applied, ...]) -> None:
    if handles:
        denoiser.__dict__[_ATTRIBUTE] = handles
    else:
        denoiser.__dict__.pop(_ATTRIBUTE, None)


def _check_names(parameters: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> None:
    for name, change in changes.items():
        if name not in parameters:
            raise EditError(
                f"this pipeline has no tensor '{name}'.{did_you_mean(name, parameters)} Load the edit's base"
            )
        if parameters[name].shape != change.shape:
            got, wanted = tuple(change.shape), tuple(parameters[name].shape)
            raise EditError(f"edit tensor '{name}' has shape {got}, this pipeline's has {wanted}; load the edit's base")


def _write(denoiser: nn.Module, values: Mapping[str, Tensor]) -> None:
    parameters = dict(denoiser.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
