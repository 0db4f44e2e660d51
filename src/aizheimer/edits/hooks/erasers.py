"""Erasers: a small network after each cross-attention, which takes the concept out of what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor

from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.additions import Gain, put_adapters
from aizheimer.modules.adapters import Bottleneck, grouped

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@dataclass(frozen=True, eq=False)
class ErasersHook:
    r"""Add an eraser's answer to the output h of each cross-attention.

    .. math:: h' = h + s\,\big(U \operatorname{GELU}(D h + b) + b'\big)

    The same for every prompt and every row; not linear in h, so no weights can hold it.

    Args:
        erasers: By ``"<module>.<field>"``, the fields being those of `aizheimer.modules.adapters.Bottleneck`.
    """

    name: ClassVar[str] = "erasers"
    erasers: Mapping[str, Tensor]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The erasers."""
        return self.erasers

    @property
    def settings(self) -> Mapping[str, Any]:
        """None: the tensors are all."""
        return {}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook with these erasers."""
        grouped(Bottleneck, tensors)
        return cls(erasers=dict(tensors), **settings)

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Put an eraser on every cross-attention."""
        patches = Patches()
        put_adapters(patches, pipe.unet, grouped(Bottleneck, self.erasers), gain=Gain(strength))
        return patches
