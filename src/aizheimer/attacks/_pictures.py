"""What an attack wants back: pictures of the target as the unedited model draws it, noised for the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer.attacks._starts import latents_of
from aizheimer.attacks.base import Subject
from aizheimer.backbones.base import Backbone
from aizheimer.data.sources import Draw
from aizheimer.evaluation.generate import PromptJob

PICTURE_SEED = 20_000
"""Far from the seeds of the pictures that decide: what an attack learns from is never what it is judged by."""


@dataclass(frozen=True, kw_only=True)
class TargetPictures:
    """Pictures of the target by prompt.

    Args:
        prompts: The target's prompts, each once.
        latents: (prompts, each, channels, height, width) clean latents, on the CPU.
    """

    prompts: tuple[str, ...]
    latents: Float[Tensor, "prompts each channels height width"]

    def noised(
        self, backbone: Backbone, prompt_index: Tensor, *, generator: torch.Generator, t: int | None = None
    ) -> Draw:
        """Return one noised picture of each prompt that is asked for, with what the denoiser should answer.

        Args:
            backbone: The model, for its noise schedule and kind of prediction.
            prompt_index: (batch,) numbers in ``prompts``, on the CPU.
            generator: Chooses pictures, timesteps and noise.
            t: The timestep of all; None draws one for each.
        """
        count, schedule = len(prompt_index), backbone.schedule
        x_0 = self.latents[prompt_index, torch.randint(self.latents.shape[1], (count,), generator=generator)]
        drawn = torch.randint(schedule.num_steps, (count,), generator=generator)
        times = drawn if t is None else torch.full((count,), t)
        noise = torch.randn(x_0.shape, generator=generator).to(x_0)
        x_t, (signal, sigma) = schedule.add_noise(x_0, noise, times), schedule.coefficients(times, x_0)
        wanted = {"epsilon": noise, "sample": x_0, "v_prediction": signal * noise - sigma * x_0}
        target, device = wanted[backbone.prediction_type], backbone.device
        return Draw(
            x_t=x_t.to(device), t=times.to(device), prompt_index=prompt_index.to(device), target=target.to(device)
        )


def target_prompts(subject: Subject) -> tuple[str, ...]:
    """Return the prompts of the pictures that decide, each once, in their order; see also `Subject.instead`."""
    return tuple(dict.fromkeys(job.prompt for job in subject.jobs))


def target_pictures(subject: Subject, *, each: int) -> TargetPictures:
    """Let the unedited model draw the target.

    Args:
        subject: The model under attack; its edit is back on afterwards.
        each: Pictures of each prompt.

    Returns:
        Their latents, the autoencoder's mean.
    """
    prompts, first = target_prompts(replace(subject, instead="")), PICTURE_SEED + subject.settings.seed
    jobs = [PromptJob(prompt, first + i) for prompt in prompts for i in range(each)]
    with subject.unedited():
        latents = latents_of(subject, subject.draw(jobs)).cpu()
    return TargetPictures(prompts=prompts, latents=latents.unflatten(0, (len(prompts), each)))


def by_prompt(prompts: Sequence[int], *, batch: int) -> Tensor:
    """Return (prompts x batch,) prompt numbers, those of one prompt side by side."""
    return torch.tensor(list(prompts)).repeat_interleave(batch)
