"""Draw with other samplers and guidance scales: an edit made and measured with one may fail with another."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.attacks._cells import best_cell
from aizheimer.attacks._drawing import draw_with, sampler
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.evaluation.generate import PromptJob

SamplerName = Literal["ddim", "euler", "euler-ancestral", "dpm++", "pndm", "ddpm"]

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ddpm": ("DDPMScheduler", {}),
}
"""Sampler -> class in diffusers, and what it is told beside the model's own schedule."""

FIRST_SEED = 20_000
"""Of the random control's pictures."""


class Sampler(BaseModel):
    """Draw the target's prompts with every sampler of a list, at every guidance scale of a list.

    The best of the grid counts, and each of its cells is told. The random control draws as many times with the usual
    sampler and scale, from other seeds: a grid that does no better was only lucky.

    Example:
        >>> Sampler(samplers=("euler",), scales=(0.5,)).samplers
        ('euler',)

    References:
        Ours as an attack. Samplers: Song et al., arXiv:2010.02502 (DDIM); Karras et al., arXiv:2206.00364, algorithm 2
        without churn (Euler); Lu et al., arXiv:2211.01095 (DPM-Solver++); Liu et al., arXiv:2202.09778 (PNDM); Ho et
        al., arXiv:2006.11239 (DDPM).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "sampler"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="no paper: what any user can do",
        access="black box",
        changes="how pictures are drawn",
        needs=("judge",),
        families=("sd", "sdxl"),
        elsewhere="flow matching takes none of these samplers",
        near_words=True,
    )

    samplers: tuple[SamplerName, ...] = Field(
        default=("ddim", "euler", "dpm++", "pndm", "ddpm"), min_length=1, description="Samplers."
    )
    scales: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.5, 1.0, 2.0),
        min_length=1,
        description="Guidance, as multiples of the scale pictures are drawn with.",
    )

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Draw the jobs with every cell of the grid."""
        grid = {f"{name} x{scale:g}": (name, scale) for name in self.samplers for scale in self.scales}
        draw = _again if subject.random else _cell
        cells = {
            label: partial(draw, subject, number, name=name, scale=scale)
            for number, (label, (name, scale)) in enumerate(grid.items())
        }
        return best_cell(subject, cells, progress=progress)


def _cell(subject: Subject, number: int, *, name: str, scale: float) -> np.ndarray:
    del number
    kind, options = CLASSES[name]
    scheduler = sampler(subject, getattr(importlib.import_module("diffusers"), kind), **options)
    return draw_with(subject, subject.jobs, scheduler=scheduler, guidance=scale * subject.guidance)


def _again(subject: Subject, number: int, *, name: str, scale: float) -> np.ndarray:
    """Draw as always, from other seeds."""
    del name, scale
    first = FIRST_SEED + number * subject.settings.images
    return subject.draw([PromptJob(job.prompt, first + job.seed) for job in subject.jobs])
