"""Guide away from words: they stand where the empty prompt stood."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.calls import CallWatch
from aizheimer.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@dataclass(frozen=True)
class NegativePromptHook:
    r"""Let guidance start from the words instead of the empty prompt.

    At strength :math:`s` the unconditional embedding is :math:`(1 - s)\,e(\varnothing) + s\,e(words)`. Negative words
    that a call brings itself stay: the hook's are written behind them. It changes nothing at guidance 1 or less, and
    warns then.

    Args:
        words: What to guide away from.
    """

    name: ClassVar[str] = "negative-prompt"
    words: str

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """None: words are enough."""
        return {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The words."""
        return {"words": self.words}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook with these settings."""
        return cls(**settings)

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Make the pipeline encode the words for its unconditional half."""
        patches = Patches()
        _Running(pipe, self.words, strength).install(patches)
        return patches


@dataclass(eq=False)
class _Running:
    """The hook on one pipeline."""

    pipe: StableDiffusionPipeline
    words: str
    strength: float
    watch: CallWatch = field(init=False)
    encode: Callable[..., Any] = field(init=False)

    def install(self, patches: Patches) -> None:
        self.watch = CallWatch(self.pipe, on_loop=self.warn_without_guidance)
        self.watch.install(patches)
        self.encode = self.pipe.encode_prompt
        patches.put(self.pipe, "encode_prompt", self.encode_prompt)

    def warn_without_guidance(self) -> None:
        if not self.watch.guided:
            warnings.warn(
                f"the negative prompt {self.words!r} does nothing at guidance 1 or less; draw with more guidance",
                stacklevel=2,
            )

    def encode_prompt(self, *args: Any, **options: Any) -> tuple[Tensor | None, ...]:
        bound = inspect.signature(type(self.pipe).encode_prompt).bind(self.pipe, *args, **options)
        asked = {name: value for name, value in bound.arguments.items() if name != "self"}
        if not asked["do_classifier_free_guidance"]:
            return self.encode(**asked)
        if asked.get("negative_prompt_embeds") is not None:
            raise EditError(
                "got negative_prompt_embeds while a negative-prompt edit is applied, whose words cannot be added to "
                "them; give negative_prompt as text, or remove the edit"
            )
        words = {"negative_prompt": self._behind(asked)}
        if self.strength == 1:
            return self.encode(**(asked | words))
        # Rows and, in some families, pooled vectors: each first of the prompt and then of the unconditional half.
        towards, encoded = self.encode(**(asked | words)), self.encode(**asked)
        return tuple(
            torch.lerp(null, other, self.strength) if i % 2 else null
            for i, (null, other) in enumerate(zip(encoded, towards, strict=True))
        )

    def _behind(self, asked: Mapping[str, Any]) -> str | list[str]:
        """Return the call's negative words with the hook's behind them, in the form that the pipeline wants."""
        own, prompt = asked.get("negative_prompt"), asked.get("prompt")
        if isinstance(own, list):
            return [self._join(text) for text in own]
        text = self._join(own)
        if isinstance(prompt, str):
            return text
        return [text] * len(prompt if prompt is not None else asked["prompt_embeds"])

    def _join(self, own: str | None) -> str:
        return f"{own}, {self.words}" if own else self.words
