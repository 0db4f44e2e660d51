"""Edits that are a behaviour, not a change of weights: what they offer, and how they get onto a pipeline and off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from aizheimer._registry import HOOKS
from aizheimer.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


class _Missing:
    """Stands for an attribute that was not there; a class, so that copies of it are itself."""


@dataclass(eq=False)
class Patches:
    """Attributes put over those of living objects, and taken off again in reverse order.

    They are written to the object's own ``__dict__``, beside torch's and diffusers' bookkeeping of attributes. What is
    put there should be bound methods: a copy of the pipeline then has copies of them that belong to it.

    Example:
        >>> patches, thing = Patches(), type("Thing", (), {"name": "old"})()
        >>> patches.put(thing, "name", "new")
        >>> patches.remove()
        >>> thing.name, vars(thing)
        ('old', {})
    """

    _entries: list[tuple[Any, str, Any]] = field(default_factory=list)

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Let ``owner.name`` be ``value``."""
        self._entries.append((owner, name, vars(owner).get(name, _Missing)))
        vars(owner)[name] = value

    def remove(self) -> None:
        """Let every attribute be what it was; a second call does nothing."""
        while self._entries:
            owner, name, previous = self._entries.pop()
            if previous is _Missing:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = previous


@runtime_checkable
class Hook(Protocol):
    """A named behaviour of a pipeline while it draws, made of tensors and settings only.

    To add one: write a file in ``edits/hooks/``, and a line in ``_registry.HOOKS`` so that saved edits find it again.
    """

    name: ClassVar[str]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What is saved beside the settings; empty for a hook of words only."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """JSON values; with the tensors they are all that the behaviour depends on."""
        ...

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook whose ``tensors`` and ``settings`` these are."""
        ...

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Make the pipeline behave so.

        Args:
            pipe: The pipeline; what is put on it must be all in the patches.
            strength: How much of it, 1 as the method means it; never 0, which installs nothing.

        Returns:
            What takes it off again.

        Raises:
            EditError: If this pipeline cannot behave so; it is then as it was.
        """
        ...


@runtime_checkable
class WeightHook(Hook, Protocol):
    """A hook that, unless a prompt decides how much of it acts, is a change of weights."""

    @property
    def gated(self) -> bool:
        """Whether a prompt decides how much of it acts; weights can hold it only if none does."""
        ...

    def changes(self, unet: nn.Module) -> Mapping[str, Tensor]:
        """Return the change of each parameter by its name in the UNet, float32, as if every prompt got all of it."""
        ...


def hook_named(name: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Hook:
    """Return the registered hook of that name with these tensors and settings.

    Raises:
        EditError: If there is no such hook, or it cannot be made of them.
    """
    kind: type[Hook] = HOOKS.get(name)
    try:
        return kind.from_saved(tensors, settings)
    except EditError:
        raise
    # A record that somebody else wrote may have anything at the place of a number, a word or a list.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EditError(
            f"hook {name!r} has settings or tensors it cannot use ({reason}); make the edit again"
        ) from error


def describe(hook: Hook, strength: float) -> dict[str, Any]:
    """Return JSON values that name a hook at a strength: equal for two that draw the same pictures."""
    digest = hashlib.sha256()
    for name, tensor in sorted(hook.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    settings = json.loads(json.dumps(dict(hook.settings), sort_keys=True))
    return {"name": hook.name, "settings": settings, "tensors": digest.hexdigest(), "strength": strength}
