"""Draw pictures so that the same prompt and seed always give the same pixels, whatever else is in the batch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from aizheimer._processes import processes
from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.concepts.world import DEFAULT_WORLD
from aizheimer.errors import InputError
from aizheimer.evaluation.image_cache import ImageCache, pipeline_digest
from aizheimer.evaluation.settings import Precision
from aizheimer.evaluation.shares import PromptJob, merged, missing_everywhere, own_batches

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""

StageProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


def staged(progress: StageProgress | None, stage: str) -> Progress | None:
    """Return the progress of many stages as that of one of them."""
    return None if progress is None else lambda done, total: progress(stage, done, total)


def jobs_in_turn(prompts: Sequence[str], *, count: int, seed: int) -> list[PromptJob]:
    """Return ``count`` jobs: each prompt in turn from the first seed, then each from the next; none without prompts.

    Example:
        >>> [(job.prompt, job.seed) for job in jobs_in_turn(["a cat", "a dog"], count=3, seed=5)]
        [('a cat', 5), ('a dog', 5), ('a cat', 6)]
    """
    return [PromptJob(prompts[i % len(prompts)], seed + i // len(prompts)) for i in range(count)] if prompts else []


def generate(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[PromptJob],
    *,
    steps: int = 20,
    guidance: float = 7.5,
    batch_size: int = 8,
    precision: Precision = "model",
    cache_dir: Path | str | Literal[False] | None = None,
    key: str = "",
    progress: Progress | None = None,
) -> np.ndarray:
    """Draw the pictures with DDIM (eta 0), or find them in the cache.

    Each picture starts from its own noise, drawn on the CPU from its own seed, and DDIM adds none: the batch a
    picture travels in changes nothing but the order of additions inside the kernels (at most a level or two of 255).
    Each batch is stored when it is done, so a run that is killed goes on where it was. Several processes
    (`aizheimer._processes`) deal the batches out, and each returns all pictures.

    Args:
        pipe: The pipeline as it should draw, an edit already applied. Left as it was found.
        prompts: Jobs; a repeated one is drawn once.
        steps: Denoising steps, 1 or more.
        guidance: Classifier-free guidance scale; 1 or less switches it off.
        batch_size: Pictures at a time, 1 or more.
        precision: "bfloat16" computes in it where that is safe; pictures differ by a few levels of 255.
        cache_dir: Folder of the shared cache; None is ``$AIZHEIMER_CACHE`` or ``~/.cache/aizheimer``, False keeps
            nothing.
        key: What else the pixels depend on, for changes that neither a tensor nor an `Edit` shows.
        progress: Called after every batch with the pictures done and the pictures in all.

    Returns:
        uint8 (n, height, width, 3), in the order of ``prompts``.

    Raises:
        InputError: If there are no prompts, or a number is out of range.
        StorageError: If the cache cannot be written.
    """
    _check(prompts, steps=steps, guidance=guidance, batch_size=batch_size)
    order = Order.of(
        pipe, prompts, steps=steps, guidance=guidance, precision=precision, cache_dir=cache_dir, key=key
    )  # fmt: skip
    images = order.found(order.entries)
    missing = missing_everywhere(list(order.entries), images)
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    _report(progress, prompts, images)
    for drawn in order.draw(pipe, own_batches(batches)):
        images |= drawn
        _report(progress, prompts, images)
    images |= merged(batches, images, shape=order.shape)
    _report(progress if processes().count > 1 else None, prompts, images)
    return np.stack([images[job] for job in prompts])


@dataclass(frozen=True, kw_only=True)
class Order:
    """Pictures that are wanted of a pipeline as it is now, and where they are kept.

    Args:
        cache: Where pictures are kept.
        entries: Their keys in it, by job.
        shape: Of a picture.
        steps: Denoising steps.
        guidance: Guidance scale.
        precision: What is computed in.
    """

    cache: ImageCache
    entries: Mapping[PromptJob, str]
    shape: tuple[int, int, int]
    steps: int
    guidance: float
    precision: Precision

    @classmethod
    def of(
        cls,
        pipe: StableDiffusionPipeline,
        prompts: Sequence[PromptJob],
        *,
        steps: int,
        guidance: float,
        precision: Precision,
        cache_dir: Path | str | Literal[False] | None,
        key: str,
    ) -> Order:
        """Name every picture by all that it depends on; the arguments are those of `generate`."""
        cache = ImageCache.at(cache_dir)
        digest = pipeline_digest(pipe) if cache.folder is not None else ""
        height, width = image_size(pipe)
        common = {"model": digest, "key": key, "steps": steps, "guidance": float(guidance), "size": [height, width]}
        if precision != "model":
            common["precision"] = precision
        if told := dict(_view(pipe).pipeline_options):
            common["pipeline_options"] = told
        common["scheduler"] = _scheduler_numbers(pipe)
        entries = {job: cache.key(prompt=job.prompt, seed=job.seed, **common) for job in dict.fromkeys(prompts)}
        return cls(
            cache=cache, entries=entries, shape=(height, width, 3), steps=steps, guidance=guidance, precision=precision
        )

    def found(self, jobs: Iterable[PromptJob]) -> dict[PromptJob, np.ndarray]:
        """Return the pictures that the cache has, and that are pictures of this size."""
        read = {job: self.cache.read(self.entries[job]) for job in jobs}
        return {
            job: image
            for job, image in read.items()
            if image is not None and image.shape == self.shape and image.dtype == np.uint8
        }

    def draw(
        self, pipe: StableDiffusionPipeline, batches: Iterable[Sequence[PromptJob]]
    ) -> Iterator[dict[PromptJob, np.ndarray]]:
        """Draw batch after batch, and store each when it is done."""
        autocast = torch.autocast(_view(pipe).device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with sampling(pipe), autocast:
            for batch in batches:
                images = draw_batch(pipe, batch, steps=self.steps, guidance=self.guidance)
                drawn = dict(zip(batch, images, strict=True))
                for job, image in drawn.items():
                    self.cache.write(self.entries[job], image)
                yield drawn


def image_size(pipe: StableDiffusionPipeline) -> tuple[int, int]:
    """Return height and width in pixels of the pictures the pipeline draws by default."""
    _, rows, columns = _view(pipe).latent_shape
    return rows * pipe.vae_scale_factor, columns * pipe.vae_scale_factor


def computed_in(pipe: StableDiffusionPipeline, precision: Precision) -> torch.dtype:
    """Return what the networks compute in while they draw."""
    return torch.bfloat16 if precision == "bfloat16" else _view(pipe).dtype


def _view(pipe: Any) -> Backbone:
    """Return a pipeline's backbone; what it draws, in words, does not matter here and is not read."""
    return backbone_for(pipe, world=DEFAULT_WORLD)


def initial_latents(pipe: StableDiffusionPipeline, seeds: Sequence[int]) -> Tensor:
    """Return unit noise (batch, channels, height, width), each row from its own seed on the CPU."""
    backbone = _view(pipe)
    shape = (1, *backbone.latent_shape)
    rows = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    return torch.cat(rows).to(backbone.device, backbone.dtype)


@contextlib.contextmanager
def sampling(pipe: StableDiffusionPipeline) -> Iterator[None]:
    """Make the pipeline sample with DDIM, in silence and without a safety checker; put everything back.

    A flow-matching model keeps a sampler of its own kind: Euler's steps, which DDIM's are to the others.

    The safety checker would paint pictures black, and black counts as forgotten.
    """
    from diffusers import DDIMScheduler

    scheduler, checker = pipe.scheduler, getattr(pipe, "safety_checker", None)
    bar = getattr(pipe, "_progress_bar_config", None)
    clip = {} if "clip_sample" in scheduler.config else {"clip_sample": False}  # latents are not bounded by 1
    if hasattr(scheduler, "alphas_cumprod"):
        pipe.scheduler = DDIMScheduler.from_config(scheduler.config, **clip)
    else:
        pipe.scheduler = type(scheduler).from_config(scheduler.config)
    if checker is not None:
        pipe.safety_checker = None
    pipe.set_progress_bar_config(**{**(bar or {}), "disable": True})
    try:
        yield
    finally:
        pipe.scheduler = scheduler
        if checker is not None:
            pipe.safety_checker = checker
        if bar is None:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = bar


def draw_batch(
    pipe: StableDiffusionPipeline,
    batch: Sequence[PromptJob],
    *,
    steps: int,
    guidance: float,
    latents: Tensor | None = None,
    **options: Any,
) -> np.ndarray:
    """Draw one batch; ``sampling`` must be active. ``latents`` to begin from may stand in for the seeds' noise.

    The pipeline is told to read prompts as the backbone's `condition` does, unless ``options`` say otherwise.
    """
    backbone = _view(pipe)
    begun = initial_latents(pipe, [job.seed for job in batch]) if latents is None else latents
    output: Any = pipe(
        [job.prompt for job in batch],
        latents=backbone.for_pipeline(begun),
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="np",
        **{**backbone.pipeline_options, **options},
    )
    # A picture that holds no numbers is black to the last pixel, whole: that is how it is told from one that was drawn.
    there = np.isfinite(output.images).all(axis=(1, 2, 3), keepdims=True)
    return (np.where(there, output.images, 0.0).clip(0.0, 1.0) * 255).round().astype(np.uint8)


def _check(prompts: Sequence[PromptJob], *, steps: int, guidance: float, batch_size: int) -> None:
    if not prompts:
        raise InputError("generate: got no prompts; give at least one")
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name}: got {value}; wanted 1 or more")
    if not guidance >= 0:
        raise InputError(f"guidance: got {guidance}; wanted 0 or more (7.5 is usual)")


def _scheduler_numbers(pipe: StableDiffusionPipeline) -> dict[str, Any]:
    """Keep the scheduler's numbers; its class and version do not matter, since DDIM takes them over."""
    config = {name: value for name, value in pipe.scheduler.config.items() if not name.startswith("_")}
    return json.loads(json.dumps(config, sort_keys=True, default=str))


def _report(progress: Progress | None, prompts: Sequence[PromptJob], images: dict[PromptJob, np.ndarray]) -> None:
    if progress is not None:
        progress(sum(job in images for job in prompts), len(prompts))
