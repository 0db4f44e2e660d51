"""Put an edit on a pipeline and take it off again, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from aizheimer.backbones.base import Backbone, NetworkName, backbone_for
from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.edits.hook import Hook, Patches, describe
from aizheimer.edits.provenance import Provenance
from aizheimer.errors import AizheimerError, EditError, did_you_mean

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

PARTS: tuple[NetworkName, ...] = get_args(NetworkName)
"""The networks of a pipeline whose weights an edit may change; its tensors are named ``<part>.<parameter>``."""
NAMES: Mapping[str, str] = {"unet": "denoiser", "text_encoder": "text encoder", "text_encoder_2": "second text encoder"}
"""The same in words."""
_ATTRIBUTE = "_aizheimer_applied"
"""Where a denoiser keeps the edits that are on it, oldest first; they come off in reverse order."""


@dataclass(eq=False)
class Applied:
    """An edit that is on a pipeline.

    Args:
        modules: The pipeline's networks by part.
        originals: Exact old values of the changed parameters, by ``<part>.<parameter>``.
        bases: Fingerprints of the parts without any edit, of those that were asked for.
        hook: The runtime behaviour, if the edit has one.
        patches: What the hook put on the pipeline.
        strength: What the edit was applied with.
    """

    modules: Mapping[str, nn.Module] = field(repr=False)
    originals: dict[str, Tensor] = field(repr=False)
    bases: dict[str, str]
    hook: Hook | None = field(default=None, repr=False)
    patches: Patches = field(default_factory=Patches, repr=False)
    strength: float = 1.0

    def remove(self) -> None:
        """Put the exact old bits back; once removed, a second call does nothing.

        Raises:
            EditError: If another edit was put on later and is still there.
        """
        denoiser = self.modules["unet"]
        active = _active(denoiser)
        if self not in active:
            return
        if active[-1] is not self:
            raise EditError("a later edit is still applied to this pipeline; remove that one first")
        self.patches.remove()
        _write(self.modules, self.originals)
        _set_active(denoiser, active[:-1])


def apply_edit(
    pipe: DiffusionPipeline,
    deltas: Mapping[str, Tensor],
    *,
    hook: Hook | None,
    provenance: Provenance,
    check_base: bool,
) -> Applied:
    """Add ``strength`` times the changes to the parameters, in float32, cast back to their dtype; install the hook.

    Args:
        pipe: The pipeline.
        deltas: Change by ``<part>.<parameter>``.
        hook: Runtime behaviour to install; none at strength 0.
        provenance: Names the base they are for, and the strength.
        check_base: Refuse another base.

    Returns:
        The handle that takes them off.

    Raises:
        EditError: If the base is another one, or has no such tensors; nothing has been changed then.
    """
    backbone = backbone_for(pipe)
    modules = backbone.networks
    active = _active(backbone.denoiser)
    parts = _parts(deltas, hook, provenance)
    _check_parts(pipe, modules, parts, provenance)
    bases = {part: _base(part, backbone, active) for part in parts}
    if check_base:
        _check_base(pipe, bases, provenance)
    _check_names(modules, deltas)
    strength = provenance.strength
    chosen = deltas if strength != 0 else {}
    originals = {name: _parameter(modules, name).detach().clone() for name in chosen}
    edited = {name: _changed(originals[name], delta, strength) for name, delta in chosen.items()}
    _write(modules, edited)
    handle = Applied(modules, originals, bases, hook=hook if strength != 0 else None, strength=strength)
    if handle.hook is not None:
        try:
            handle.patches = handle.hook.install(backbone.pipe, strength=strength)
        except BaseException as error:
            _write(modules, originals)
            if isinstance(error, AizheimerError) or not isinstance(error, Exception):
                raise
            raise EditError(
                f"the hook {handle.hook.name!r} cannot be put on this pipeline ({type(error).__name__}: {error}); "
                "make the edit again"
            ) from error
    _set_active(backbone.denoiser, (*active, handle))
    return handle


@contextmanager
def lifted(pipe: DiffusionPipeline) -> Iterator[DiffusionPipeline]:
    """Take every edit off for the length of a ``with`` block; then the pipeline is edited again, bit for bit."""
    backbone = backbone_for(pipe)
    modules, active = backbone.networks, _active(backbone.denoiser)
    edited = {name: _parameter(modules, name).detach().clone() for applied in active for name in applied.originals}
    for applied in reversed(active):
        applied.patches.remove()
        _write(modules, applied.originals)
    _set_active(backbone.denoiser, ())
    try:
        yield pipe
    finally:
        _write(modules, edited)
        for applied in active:
            if applied.hook is not None:
                applied.patches = applied.hook.install(backbone.pipe, strength=applied.strength)
        _set_active(backbone.denoiser, active)


def hooks_on(pipe: DiffusionPipeline) -> list[dict[str, Any]]:
    """Return JSON values that name every hook that is on a pipeline, oldest first: what its pictures depend on."""
    applied = _active(backbone_for(pipe).denoiser)
    return [describe(edit.hook, edit.strength) for edit in applied if edit.hook is not None]


def _parts(deltas: Mapping[str, Tensor], hook: Hook | None, provenance: Provenance) -> tuple[str, ...]:
    """Return the parts that must be those of the edit's base: the changed ones, and what a hook was made of."""
    edited = {name.partition(".")[0] for name in deltas}
    unet = "unet" in edited or hook is not None or not deltas
    text = edited - {"unet"} | provenance.text_fingerprints.keys()
    return ("unet",) * unet + tuple(sorted(text))


def _base(part: str, backbone: Backbone, active: tuple[Applied, ...]) -> str:
    """Return a part's fingerprint without the edits that are on it.

    Whoever changes a part has asked for its fingerprint first, so the oldest answer is that of the untouched weights.
    """
    for applied in active:
        if part in applied.bases:
            return applied.bases[part]
    return backbone.fingerprint() if part == "unet" else module_fingerprint(backbone.networks[part])


def _check_parts(
    pipe: DiffusionPipeline, modules: Mapping[str, nn.Module], parts: tuple[str, ...], provenance: Provenance
) -> None:
    if missing := [part for part in parts if part not in modules]:
        raise EditError(
            f"this edit was made for {provenance.base_name or 'an unnamed base'} and its {NAMES[missing[0]]}, which "
            f"{pipe.name_or_path or 'this pipeline'} does not have; load that base"
        )


def _check_base(pipe: DiffusionPipeline, bases: Mapping[str, str], provenance: Provenance) -> None:
    wanted = provenance.fingerprints
    for part, base in bases.items():
        if base != wanted[part]:
            made_for = f"{provenance.base_name or 'an unnamed base'} ({wanted[part]})"
            what = "" if part == "unet" else f"with the {NAMES[part]} of "
            raise EditError(
                f"this edit was made for {what}{made_for}, this pipeline is {pipe.name_or_path or 'an unnamed base'} "
                f"({base}); load that base, or pass check_base=False"
            )


def _active(denoiser: nn.Module) -> tuple[Applied, ...]:
    return denoiser.__dict__.get(_ATTRIBUTE, ())


def _set_active(denoiser: nn.Module, handles: tuple[Applied, ...]) -> None:
    if handles:
        denoiser.__dict__[_ATTRIBUTE] = handles
    else:
        denoiser.__dict__.pop(_ATTRIBUTE, None)


def _check_names(modules: Mapping[str, nn.Module], deltas: Mapping[str, Tensor]) -> None:
    known = {part: dict(module.named_parameters()) for part, module in modules.items()}
    for name, delta in deltas.items():
        part, _, parameter = name.partition(".")
        if parameter not in known[part]:
            hint = did_you_mean(parameter, known[part])
            raise EditError(f"this pipeline has no tensor '{parameter}' in its {part}.{hint} Load the edit's base")
        if known[part][parameter].shape != delta.shape:
            got, wanted = tuple(delta.shape), tuple(known[part][parameter].shape)
            raise EditError(f"edit tensor '{name}' has shape {got}, this pipeline's has {wanted}; load the edit's base")


def _parameter(modules: Mapping[str, nn.Module], name: str) -> nn.Parameter:
    part, _, parameter = name.partition(".")
    return modules[part].get_parameter(parameter)


def _changed(original: Tensor, delta: Tensor, strength: float) -> Tensor:
    return (original.float() + strength * delta.to(original.device)).to(original.dtype)


def _write(modules: Mapping[str, nn.Module], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            _parameter(modules, name).copy_(value)
