"""Begin at a picture of the concept instead of noise: what remains of it leads the edited model there."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.attacks._drawing import Start, partial_start
from aizheimer.attacks._starts import draw_from, given_pictures, latents_of
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.evaluation.generate import initial_latents

NOISE_SEED = 50_000
"""Added to a job's seed for the noise on its start picture: its own noise drew that picture, and leads back to it."""

Share = Annotated[float, Field(gt=0, le=1)]


class Img2Img(BaseModel):
    r"""Noise a picture of the concept to a timestep t < T and let the edited model draw the rest.

    .. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon

    The less noise, the more of the picture is simply still there: the rate at each strength is told, and beside the
    strength that decides also the rate with the empty prompt, where the model adds nothing that was asked for.

    Example:
        >>> Img2Img(strength=0.6).strength
        0.6

    References:
        Meng et al., SDEdit, arXiv:2108.01073, algorithm 1; as an attack on unlearning Sharma et al., arXiv:2409.05668.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "img2img"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Meng et al., SDEdit, arXiv:2108.01073; on unlearned models Sharma et al., Unlearning or Concealment?, "
        "arXiv:2409.05668",
        access="black box",
        changes="the start of drawing",
        needs=("unedited model",),
        families=("sd", "sdxl"),
        elsewhere="it begins among the steps of DDIM, which flow matching does not take",
        near_words=True,
    )

    strength: float = Field(default=0.8, gt=0, le=1, description="Share of the steps that decides; 1 is all of them.")
    curve: tuple[Share, ...] = Field(
        default=(0.4, 0.6, 0.9), description="Further strengths whose rates are told; each costs as many pictures."
    )

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Draw every job from its own picture by the unedited model; as the random control from another concept's.

        Raises:
            InputError: If this is the random control and there is no other concept.
        """
        starts = {strength: partial_start(subject, strength) for strength in sorted({*self.curve, self.strength})}
        given = given_pictures(subject)
        x_0 = latents_of(subject, given.images)
        seeds = [job.seed + NOISE_SEED for job in subject.jobs]
        noise = initial_latents(subject.backbone.pipe, seeds)
        rows, images = [], given.images
        for done, (strength, start) in enumerate(starts.items()):
            drawn = draw_from(subject, noised(subject, x_0, noise=noise, start=start), start=start)
            rows.append({**_row(start, strength), "rate": float(subject.shows(drawn).mean())})
            images = drawn if strength == self.strength else images
            if progress is not None:
                progress(done + 1, len(starts) + 1)
        own = starts[self.strength]
        silent = draw_from(subject, noised(subject, x_0, noise=noise, start=own), start=own, words=False)
        details: dict[str, Any] = {"start": given.shows, "strengths": rows}
        details["without_words"] = float(subject.shows(silent).mean())
        if progress is not None:
            progress(len(starts) + 1, len(starts) + 1)
        return Outcome(images=images, queries=len(images) * (len(starts) + 1), details=details)


def noised(subject: Subject, x_0: Tensor, *, noise: Tensor, start: Start) -> Tensor:
    """Return clean latents with as much noise as a start wants."""
    return subject.backbone.schedule.add_noise(x_0, noise.to(x_0), start.t)


def _row(start: Start, strength: float) -> dict[str, Any]:
    return {"strength": strength, "steps": len(start.timesteps), "timestep": int(start.t)}
