"""Follow a pipeline's calls from inside: what was asked for, which rows are whose, and how far the loop is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aizheimer.backbones.conditioning import Conditioning
from aizheimer.edits.hook import Patches

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def _nothing() -> None:
    """Do nothing."""


@dataclass(eq=False)
class CallWatch:
    """Knows, for the hook that made it, what the pipeline is doing.

    A call begins with ``encode_prompt``, which every call of a ``StableDiffusionPipeline`` makes once, with text or
    with embeddings; its denoising loop is what happens inside ``progress_bar``. Both are watched, so nothing depends
    on a scheduler's steps, on their number or on what was drawn before. Networks that are called outside of a loop,
    as training and attacks do, are none of a call's business: `looping` is false then.

    Args:
        pipe: The pipeline.
        on_loop: Called when a denoising loop begins.

    Attributes:
        prompts: The call's prompts; None if it brought embeddings.
        images_per_prompt: Pictures of each prompt, neighbours in the batch.
        rows: Pictures of the call; with guidance the denoiser sees twice as many, the unconditional ones first.
        guided: Whether the call has classifier-free guidance.
        looping: Whether the denoising loop is running.
        step: Evaluations of the denoiser since the loop began, as counted by `tick`; the first is 0.
    """

    pipe: StableDiffusionPipeline
    on_loop: Callable[[], None] = _nothing
    prompts: list[str] | None = None
    images_per_prompt: int = 1
    rows: int = 0
    guided: bool = False
    looping: bool = False
    step: int = -1
    _timestep: float | None = None
    _encode: Callable[..., Any] = field(default=_nothing, repr=False)
    _bar: Callable[..., Any] = field(default=_nothing, repr=False)

    def install(self, patches: Patches) -> None:
        """Begin to watch; what that takes is added to ``patches``."""
        self._encode, self._bar = self.pipe.encode_prompt, self.pipe.progress_bar
        patches.put(self.pipe, "encode_prompt", self.encode_prompt)
        patches.put(self.pipe, "progress_bar", self.progress_bar)

    def encode_prompt(self, *args: Any, **options: Any) -> Any:
        """Note what is asked for, and let the pipeline encode it."""
        asked = inspect.signature(type(self.pipe).encode_prompt).bind(self.pipe, *args, **options).arguments
        prompt, embeddings = asked.get("prompt"), asked.get("prompt_embeds")
        self.prompts = None if embeddings is not None or prompt is None else _as_list(prompt)
        self.images_per_prompt = int(asked["num_images_per_prompt"])
        self.guided = bool(asked["do_classifier_free_guidance"])
        self.step, self._timestep = -1, None
        encoded = self._encode(*args, **options)
        self.rows = len(encoded[0])
        return encoded

    def progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        """Note where the denoising loop begins and ends, and let the pipeline draw its bar."""
        if iterable is not None:
            return self._bar(iterable, total)
        return self._loop(total)

    @contextmanager
    def _loop(self, total: int | None) -> Iterator[Any]:
        with self._bar(total=total) as bar:
            self.looping, self.step, self._timestep = True, -1, None
            try:
                self.on_loop()
                yield bar
            finally:
                self.looping = False

    def tick(self, timestep: Tensor | float) -> int:
        """Count one evaluation of the denoiser and return its number; a timestep that rises begins a new picture."""
        now = float(torch.as_tensor(timestep).max())
        self.step = 0 if self._timestep is None or now > self._timestep else self.step + 1
        self._timestep = now
        return self.step

    def is_guided_batch(self, size: int) -> bool:
        """Whether a batch of that size is the loop's own, unconditional rows first and conditional rows second."""
        return self.looping and self.guided and size == 2 * self.rows

    def conditional_rows(self, size: int) -> slice:
        """Return which rows of a batch read the prompts: all but the unconditional half."""
        return slice(self.rows, None) if self.is_guided_batch(size) else slice(None)

    def encode_words(self, words: list[str]) -> Conditioning:
        """Return words of the hook's own, encoded as prompts are; no other hook takes this for a call."""
        encode = type(self.pipe).encode_prompt
        options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        with torch.no_grad():
            found = encode(self.pipe, prompt=words, device=self.pipe._execution_device, **options)
        return Conditioning(found[0], found[2] if len(found) > 2 else None)


def of_rows(value: Any, rows: slice | list[int], *, size: int) -> Any:
    """Return these rows of whatever else the denoiser is given for each row of a batch of that size."""
    if isinstance(value, Tensor) and value.ndim and len(value) == size:
        return value[rows]
    if isinstance(value, dict):
        return {name: of_rows(item, rows, size=size) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(of_rows(item, rows, size=size) for item in value)
    return value


def _as_list(prompt: str | list[str]) -> list[str]:
    return [prompt] if isinstance(prompt, str) else list(prompt)
