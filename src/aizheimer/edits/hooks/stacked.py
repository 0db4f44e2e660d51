"""Several behaviours on one pipeline, put on in order: what a stack of edits with hooks is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor

from aizheimer.edits.hook import Hook, Patches, describe, hook_named
from aizheimer.edits.parts import same_strength

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@dataclass(frozen=True, eq=False)
class StackedHook:
    """Put hooks on one after the other, each at its own strength; the later ones act on what the earlier ones left.

    Args:
        parts: Hooks with their strengths, the first to be put on first. None of them is itself a stack.
    """

    name: ClassVar[str] = "stacked"
    parts: tuple[tuple[Hook, float], ...]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Those of the parts, each under the number of its part."""
        return {
            f"{i}.{name}": tensor for i, (hook, _) in enumerate(self.parts) for name, tensor in hook.tensors.items()
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        """Name, settings and strength of each part."""
        return {
            "parts": [
                {"name": hook.name, "settings": dict(hook.settings), "strength": strength}
                for hook, strength in self.parts
            ]
        }

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the stack with these tensors and settings."""
        parts = []
        for i, part in enumerate(settings["parts"]):
            own = {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{i}.")}
            parts.append((hook_named(str(part["name"]), own, part["settings"]), float(part["strength"])))
        return cls(tuple(parts))

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Put every part on; none is left on if one cannot be."""
        done: list[Patches] = []
        try:
            for hook, own in self.parts:
                done.append(hook.install(pipe, strength=strength * own))
        except BaseException:
            for patches in reversed(done):
                patches.remove()
            raise
        return Patches([entry for patches in done for entry in patches._entries])


def flat_parts(hook: Hook | None, strength: float) -> list[tuple[Hook, float]]:
    """Return a hook as parts of a stack: none, one, or those of the stack it is itself."""
    if hook is None or strength == 0:
        return []
    if isinstance(hook, StackedHook):
        return [(part, strength * own) for part, own in hook.parts]
    return [(hook, strength)]


def hook_of(parts: Sequence[tuple[Hook, float]]) -> Hook | None:
    """Return what puts these parts on at strength 1: nothing, the hook itself, or a stack."""
    if not parts:
        return None
    if len(parts) == 1 and parts[0][1] == 1.0:
        return parts[0][0]
    return StackedHook(tuple(parts))


def without(parts: Sequence[tuple[Hook, float]], gone: Sequence[tuple[Hook, float]]) -> list[tuple[Hook, float]] | None:
    """Return parts without others, the last of equal ones first; None if one of the others is not among them."""
    left = list(parts)
    for hook, strength in gone:
        wanted = describe(hook, 1.0)
        equal = (i for i in reversed(range(len(left))) if same_strength(left[i][1], strength))
        place = next((i for i in equal if describe(left[i][0], 1.0) == wanted), None)
        if place is None:
            return None
        del left[place]
    return left
