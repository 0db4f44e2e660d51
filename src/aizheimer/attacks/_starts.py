"""What attacks that begin at a picture are given: the target's, or another concept's as their random control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer._typing import Latents
from aizheimer.attacks._drawing import AfterStep, Start, draw_with
from aizheimer.attacks.base import Progress, Subject
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import to_pixels
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import PromptJob
from aizheimer.evaluation.plan import candidates

ENCODED_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures that the unedited model drew.

    Args:
        images: uint8 (n, height, width, 3).
        jobs: What each was drawn from.
        shows: What they were asked to show.
    """

    images: np.ndarray
    jobs: list[PromptJob]
    shows: str


def other_concept(subject: Subject) -> Concept:
    """Return a random other concept of the target's kind: the same for every attack with the same seed.

    Raises:
        InputError: If the world has no other.
    """
    words = candidates(subject.concept, subject.backbone.world)
    if not words:
        raise InputError(f"this model's world knows no other {subject.concept.kind} than {subject.concept.target!r}")
    generator = generator_for(subject.settings.seed, "other concept", subject.concept.target)
    chosen = words[int(torch.randint(len(words), (1,), generator=generator))]
    return Concept(chosen, kind=subject.concept.kind)


def given_pictures(subject: Subject, count: int | None = None, *, first_seed: int = 0) -> Pictures:
    """Draw with the unedited model: the target, or if the subject is the random control, another concept.

    Args:
        subject: The model under attack.
        count: How many; None is one for each of the subject's jobs.
        first_seed: Added to the jobs' seeds; 0 draws the very pictures that the edit should prevent.

    Returns:
        The pictures, prompts in turn as `Subject.jobs` has them.
    """
    shown = other_concept(subject) if subject.random else subject.concept
    settings = subject.settings if count is None else subject.settings.model_copy(update={"images": count})
    asked = replace(subject, concept=shown, settings=settings, instead="").jobs
    jobs = [PromptJob(job.prompt, job.seed + first_seed) for job in asked]
    with subject.unedited():
        return Pictures(images=subject.draw(jobs), jobs=jobs, shows=shown.target)


def latents_of(subject: Subject, images: np.ndarray) -> Latents:
    """Return the scaled latents (n, channels, height, width) of pictures: the mean of what the encoder says."""
    backbone = subject.backbone
    pixels = to_pixels(images)
    parts = [
        backbone.encode_images(pixels[i : i + ENCODED_AT_ONCE].to(backbone.device, backbone.dtype))
        for i in range(0, len(pixels), ENCODED_AT_ONCE)
    ]
    return torch.cat(parts)


def draw_from(
    subject: Subject,
    x_t: Tensor,
    *,
    start: Start,
    words: bool = True,
    after_step: AfterStep | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Draw the subject's jobs from :math:`x_t` on.

    Args:
        subject: The model under attack.
        x_t: (jobs, channels, height, width) at ``start.t``.
        start: Which steps are left to take.
        words: Ask with the target's prompts; False asks with the empty prompt, for what a start gives by itself.
        after_step: See `draw_with`.
        progress: See `draw_with`.
    """
    jobs: Sequence[PromptJob] = subject.jobs
    if not words:
        jobs = [PromptJob("", job.seed) for job in jobs]
    return draw_with(subject, jobs, scheduler=start.scheduler, latents=x_t, after_step=after_step, progress=progress)
