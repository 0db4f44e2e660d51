"""Let the edited model redraw the middle of a picture of the concept: its surroundings say what belongs there."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.attacks._drawing import AfterStep, partial_start
from aizheimer.attacks._starts import draw_from, given_pictures, latents_of
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.evaluation.generate import initial_latents


class Inpaint(BaseModel):
    r"""Cover the middle of a picture of the concept and redraw it, the rest held in place at every step.

    With a mask m, 1 where the picture is redrawn, latents after the step to t' become

    .. math:: m \odot x_{t'} + (1 - m) \odot (\sqrt{\bar\alpha_{t'}}\, x_0 + \sqrt{1 - \bar\alpha_{t'}}\, \epsilon)

    with the same :math:`\epsilon` at all steps, and :math:`x_0` itself after the last. No inpainting model is needed.
    A judge may know the concept by what was left around the middle: the rate with the empty prompt, beside which the
    attack's must be read, tells how often.

    Example:
        >>> Inpaint(side=0.5).side
        0.5

    References:
        Avrahami et al., Blended Latent Diffusion, arXiv:2206.02779; Lugmayr et al., RePaint,
        arXiv:2201.09865, equation 8, without its jumps back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "inpaint"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Avrahami et al., Blended Latent Diffusion, arXiv:2206.02779; ours as an attack",
        access="grey box",
        changes="the latents while drawing",
        needs=("unedited model",),
        families=("sd", "sdxl"),
        elsewhere="it begins among the steps of DDIM, which flow matching does not take",
        near_words=True,
    )

    side: float = Field(
        default=0.7, gt=0, le=1, description="Edge of the redrawn square, as a share of the picture's; 1 is all of it."
    )

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Redraw the middle of every job's picture; as the random control the middle of another concept's.

        Raises:
            InputError: If this is the random control and there is no other concept.
        """
        given = given_pictures(subject)
        x_0 = latents_of(subject, given.images)
        noise = initial_latents(subject.backbone.pipe, [job.seed for job in subject.jobs]).to(x_0)
        mask = middle(x_0.shape[-2:], side=self.side).to(x_0.device)
        start = partial_start(subject, 1.0)
        hold = holding(subject, x_0, noise=noise, mask=mask, timesteps=start.timesteps)
        begun = torch.where(mask, noise, subject.backbone.schedule.add_noise(x_0, noise, start.t))
        images = draw_from(subject, begun, start=start, after_step=hold, progress=progress)
        silent = draw_from(subject, begun, start=start, after_step=hold, words=False)
        details: dict[str, Any] = {"start": given.shows, "redrawn": float(mask.float().mean())}
        details["without_words"] = float(subject.shows(silent).mean())
        return Outcome(images=images, queries=len(silent), details=details)


def middle(size: tuple[int, int] | torch.Size, *, side: float) -> Bool[Tensor, "height width"]:
    """Return True in the centred rectangle whose edges are ``side`` of the whole, at least one cell.

    Example:
        >>> middle((4, 4), side=0.5).int().tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = torch.zeros(tuple(size), dtype=torch.bool)
    inner = [max(1, round(side * edge)) for edge in size]
    top, left = ((edge - own) // 2 for edge, own in zip(size, inner, strict=True))
    mask[top : top + inner[0], left : left + inner[1]] = True
    return mask


def holding(subject: Subject, x_0: Tensor, *, noise: Tensor, mask: Tensor, timesteps: Tensor) -> AfterStep:
    """Return what puts the known part of pictures back after every step.

    Args:
        subject: Its schedule says how noisy the known part must be.
        x_0: (n, channels, height, width), clean.
        noise: Of the same shape.
        mask: (height, width), True where pictures are redrawn.
        timesteps: The sampler's, falling: step i ends at timestep i + 1, the last one at clean latents.
    """

    def after_step(step: int, latents: Tensor, rows: slice) -> Tensor:
        known = x_0[rows]
        if step + 1 < len(timesteps):
            known = subject.backbone.schedule.add_noise(known, noise[rows], timesteps[step + 1])
        return torch.where(mask, latents, known.to(latents))

    return after_step
