"""Look for the noise that the edited model would have drawn a picture of the concept from, and draw from there."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer._typing import Latents, TextEmbeddings
from aizheimer.attacks._drawing import Start, partial_start
from aizheimer.attacks._starts import draw_from, given_pictures, latents_of
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.backbones.base import Backbone
from aizheimer.diffusion.guidance import guide
from aizheimer.diffusion.prediction import to_epsilon


class NoiseInversion(BaseModel):
    r"""Run the edited model's sampler backwards from a picture of the concept, to t < T, then forwards with its prompt.

    The step of DDIM from :math:`t` up to :math:`t'` (:math:`\bar\alpha` before and :math:`\bar\alpha'` after) is

    .. math:: x_{t'} = \sqrt{\bar\alpha'}\, \frac{x_t - \sqrt{1 - \bar\alpha}\, \epsilon}{\sqrt{\bar\alpha}}
              + \sqrt{1 - \bar\alpha'}\, \epsilon, \qquad \epsilon = \epsilon_\theta(x_t, t', c)

    with the timestep that the way back will ask at. Unlike noise of one's own choice (``img2img``), what is found is
    the edited model's own memory of the picture; only weights and latents are needed, no gradients.

    Example:
        >>> NoiseInversion(strength=1.0).guidance
        1.0

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502, equation 13; as an attack Rusanovsky et al.,
        Memories of Forgotten Concepts, arXiv:2412.00782; partial diffusion: Sharma et al., arXiv:2409.05668.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "noise-inversion"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Rusanovsky et al., Memories of Forgotten Concepts, arXiv:2412.00782; Sharma et al., Unlearning or "
        "Concealment?, arXiv:2409.05668",
        access="grey box",
        changes="the start of drawing",
        needs=("unedited model",),
        near_words=True,
    )

    strength: float = Field(
        default=0.8, gt=0, le=1, description="How far up to go, as a share of the steps; 1 is up to pure noise."
    )
    guidance: float = Field(
        default=1.0, ge=0, description="Guidance on the way up; 1 is the prompt without guidance, as is usual."
    )

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Invert every job's picture by the unedited model; as the random control another concept's.

        Raises:
            InputError: If this is the random control and there is no other concept.
        """
        given = given_pictures(subject)
        x_0 = latents_of(subject, given.images)
        start = partial_start(subject, self.strength)
        x_t = torch.cat([self._up(subject, x_0, rows=rows, start=start) for rows in _batches(subject)])
        images = draw_from(subject, x_t, start=start, progress=progress)
        silent = draw_from(subject, x_t, start=start, words=False)
        details: dict[str, Any] = {"start": given.shows, "steps": len(start.timesteps), "timestep": int(start.t)}
        details["noise_std"] = float(x_t.float().std())
        details["without_words"] = float(subject.shows(silent).mean())
        return Outcome(images=images, queries=len(silent), details=details)

    def _up(self, subject: Subject, x_0: Tensor, *, rows: slice, start: Start) -> Tensor:
        """Invert some of the pictures."""
        backbone = subject.backbone
        prompts = [job.prompt for job in subject.jobs[rows]]
        null = None if self.guidance == 1 else backbone.encode_prompts([""] * len(prompts))
        return inverted(
            subject, x_0[rows], start=start, embeddings=backbone.encode_prompts(prompts), null=null, scale=self.guidance
        )


@torch.no_grad()
def inverted(
    subject: Subject,
    x_0: Latents,
    *,
    start: Start,
    embeddings: TextEmbeddings,
    null: TextEmbeddings | None = None,
    scale: float = 1.0,
) -> Latents:
    r"""Return :math:`x_t` at ``start.t``, by DDIM's steps backwards.

    Args:
        subject: The model under attack.
        x_0: Clean latents.
        start: How far up, and in which steps.
        embeddings: The prompts.
        null: The empty prompt as often, for guidance; None for none.
        scale: Of guidance.
    """
    schedule, kind = subject.backbone.schedule, subject.backbone.prediction_type
    alpha = torch.as_tensor(start.scheduler.final_alpha_cumprod)
    predicted = partial(_predicted, backbone=subject.backbone, embeddings=embeddings, null=null, scale=scale)
    x = x_0
    for t in start.timesteps.flip(0):
        epsilon = to_epsilon(predicted(x, t), x, t, schedule, kind)
        above = schedule.at(t)
        clean = (x - (1 - alpha).sqrt().to(x) * epsilon) / alpha.sqrt().to(x)
        x = above.sqrt().to(x) * clean + (1 - above).sqrt().to(x) * epsilon
        alpha = above
    return x


def _predicted(
    x: Tensor, t: Tensor, *, backbone: Backbone, embeddings: Tensor, null: Tensor | None, scale: float
) -> Tensor:
    if null is None:
        return backbone.predict(x, t.to(x.device), embeddings)
    both = backbone.predict(torch.cat([x, x]), t.to(x.device), torch.cat([null, embeddings]))
    unconditional, conditional = both.chunk(2)
    return guide(unconditional, conditional, scale)


def _batches(subject: Subject) -> list[slice]:
    size = subject.settings.batch_size
    return [slice(i, i + size) for i in range(0, subject.settings.images, size)]
