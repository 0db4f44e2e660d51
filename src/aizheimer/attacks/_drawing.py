"""Draw an attack's pictures in other ways than `Subject.draw`: another sampler, another start, a step in between.

All of it goes through the pipeline's own call, so that an edit that acts while pictures are drawn acts here too.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.attacks.base import Progress, Subject
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import PromptJob, draw_batch, sampling

AfterStep = Callable[[int, Tensor, slice], Tensor]
"""Given the number of a step, the latents after it and which pictures they are of; returns what to go on with."""


class PartialDDIM(DDIMScheduler):
    """DDIM that takes only the last steps of its grid, so that it begins at a picture that is partly noise.

    Attributes:
        kept: How many of the last steps are taken; None takes all.
    """

    kept: int | None = None

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Lay out the whole grid, then leave its beginning out: the steps that remain are as they were."""
        super().set_timesteps(num_inference_steps, device)  # pyright: ignore[reportArgumentType]
        if self.kept is not None:
            self.timesteps = self.timesteps[-self.kept :]


@dataclass(frozen=True, kw_only=True)
class Start:
    r"""Where a partial drawing begins: :math:`x_t` at one timestep of the sampler's grid.

    Args:
        scheduler: Takes the last steps only.
        timesteps: (kept,) the timesteps it takes, falling; the first is t.
        share: The share of the steps that is taken; 1 is all of them.
    """

    scheduler: PartialDDIM
    timesteps: Tensor
    share: float

    @property
    def t(self) -> Tensor:
        """The timestep that drawing begins at, a tensor without axes."""
        return self.timesteps[0]


def partial_start(subject: Subject, strength: float) -> Start:
    """Return the start that leaves ``strength`` of the subject's steps to take: to the nearest step, at least one.

    Raises:
        InputError: If the strength is outside (0, 1].
    """
    if not 0 < strength <= 1:
        raise InputError(f"strength: got {strength}, wanted more than 0 and at most 1")
    steps = subject.settings.steps
    kept = max(1, round(strength * steps))
    scheduler: PartialDDIM = sampler(subject, PartialDDIM)
    scheduler.kept = kept
    scheduler.set_timesteps(steps)
    return Start(scheduler=scheduler, timesteps=scheduler.timesteps.clone(), share=kept / steps)


def draw_with(
    subject: Subject,
    jobs: Sequence[PromptJob],
    *,
    scheduler: SchedulerMixin,
    guidance: float | None = None,
    latents: Tensor | None = None,
    after_step: AfterStep | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Draw pictures with another sampler than DDIM, or from latents, and keep none in the cache.

    Args:
        subject: The model under attack, its steps, batch size and precision.
        jobs: What to draw; a job's seed gives its initial noise, and the noise of a sampler that adds some.
        scheduler: The sampler.
        guidance: Scale; None is the subject's.
        latents: (jobs, channels, height, width) to begin from; None is each job's own noise.
        after_step: May change the latents after every step.
        progress: Called with (pictures done, pictures in all).

    Returns:
        uint8 (jobs, height, width, 3).
    """
    pipe, settings = subject.backbone.pipe, subject.settings
    scale = subject.guidance if guidance is None else guidance
    autocast = torch.autocast(subject.backbone.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    drawn = []
    with sampling(pipe), autocast, _quiet_numpy():
        pipe.scheduler = scheduler  # ``sampling`` puts the pipeline's own back
        for begin in range(0, len(jobs), settings.batch_size):
            rows = slice(begin, begin + settings.batch_size)
            batch = jobs[rows]
            options: dict[str, Any] = {"generator": [generator_for(job.seed, job.prompt, "sampler") for job in batch]}
            if after_step is not None:
                options["callback_on_step_end"] = _calling(after_step, rows)
            begun = None if latents is None else latents[rows]
            drawn.append(draw_batch(pipe, batch, steps=settings.steps, guidance=scale, latents=begun, **options))
            if progress is not None:
                progress(begin + len(batch), len(jobs))
    return np.concatenate(drawn)


def sampler(subject: Subject, kind: type[Any], **options: Any) -> Any:
    """Return a sampler of that class with the noise schedule of the subject's model."""
    config = subject.backbone.pipe.scheduler.config
    if "clip_sample" not in config and "clip_sample" in inspect.signature(kind).parameters:
        options = {"clip_sample": False, **options}  # latents are not bounded by 1
    with _quiet_numpy():
        return kind.from_config(config, **options)


@contextlib.contextmanager
def _quiet_numpy() -> Iterator[None]:
    """Let diffusers' schedulers make arrays of tensors, which numpy 2 deprecates for tensors of older torch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        yield


def _calling(after_step: AfterStep, rows: slice) -> Callable[..., dict[str, Tensor]]:
    def call(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        del pipe, timestep
        return {"latents": after_step(step, tensors["latents"], rows)}

    return call
