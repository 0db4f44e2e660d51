"""Noisy latents that a model really meets, without any image: short guided rollouts of the frozen model.

Training inputs without photos are often pure noise, which is off-distribution at every timestep but the last. A
rollout costs about as much as drawing a few pictures once, and every one of its steps is a training input: the
latents ``x_t`` on the way, and, for free, what the frozen teacher predicts there with and without the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions, expanded
from aizheimer.diffusion.prediction import Schedule, to_epsilon, to_x0
from aizheimer.errors import DataError

Progress = Callable[[int, int], None]


class RolloutPlan(BaseModel):
    """How many trajectories of the frozen model to roll out, and how.

    Example:
        >>> RolloutPlan(steps=5).retain
        48
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    forget: int = Field(
        default=16, ge=1, description="Trajectories of forget prompts to train on, when there are no images."
    )
    retain: int = Field(default=48, ge=1, description="Trajectories of retain prompts to train on.")
    holdout: int = Field(default=4, ge=1, description="Trajectories of each kind that are only watched.")
    steps: int = Field(default=10, ge=1, description="Denoising steps of a trajectory; each one is a training input.")
    picture_steps: int = Field(default=30, ge=1, description="Denoising steps of a picture that generate:N draws.")
    guidance: float | None = Field(
        default=None, ge=0, description="Guidance scale; null for the one the model draws best with."
    )
    keep: Literal["float32", "float16"] = Field(
        default="float32",
        description="Number format that trajectories are kept in; float16 halves their file, and training reads them "
        "rounded to 11 bits. Pictures are kept whole.",
    )

    def guidance_or(self, default: float) -> float:
        """Return the guidance scale, or the model's own where none is set."""
        return default if self.guidance is None else self.guidance


@dataclass(frozen=True, kw_only=True)
class LatentBank:
    """Steps of teacher trajectories, trajectory after trajectory.

    Args:
        x_t: (entries, channels, height, width) noisy latents.
        t: (entries,) their timesteps.
        prompt_index: (entries,) which prompt drew them.
        trajectory: (entries,) which trajectory they belong to, a row of ``x_0``.
        prediction: (entries, ...) the teacher's raw prediction under the prompt.
        null_prediction: (entries, ...) the teacher's raw prediction under the empty prompt.
        x_0: (trajectories, ...) the clean latents each trajectory ends at.

    Trajectories that were kept on the disk are not read whole: their tensors are views of the mapped file, and the
    system fetches the pages of what is drawn.
    """

    x_t: Tensor
    t: Tensor
    prompt_index: Tensor
    trajectory: Tensor
    prediction: Tensor
    null_prediction: Tensor
    x_0: Tensor

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.t)

    @property
    def x_0_prompt_index(self) -> Tensor:
        """(trajectories,) the prompt each row of ``x_0`` was drawn for."""
        first = torch.searchsorted(self.trajectory, torch.arange(len(self.x_0)))
        return self.prompt_index[first]

    def split(self, holdout: int) -> tuple[LatentBank, LatentBank]:
        """Return the bank without its last ``holdout`` trajectories, and those trajectories."""
        edge = len(self.x_0) - holdout
        return self._trajectories(0, edge), self._trajectories(edge, len(self.x_0))

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name, to be stored; ``LatentBank(**tensors)`` reads them back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _trajectories(self, start: int, stop: int) -> LatentBank:
        # Slices, not copies: a bank may be a file that is larger than the memory.
        first, end = torch.searchsorted(self.trajectory, torch.tensor([start, stop])).tolist()
        chosen = {name: tensor[first:end] for name, tensor in self.tensors().items() if name != "x_0"}
        return replace(self, **chosen | {"trajectory": chosen["trajectory"] - start, "x_0": self.x_0[start:stop]})


def rollout_bank(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    steps: int = 10,
    guidance: float = 7.5,
    generator: torch.Generator,
    jitter: bool = True,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> LatentBank:
    """Roll the model out once for each prompt and keep every step.

    Args:
        backbone: The frozen teacher.
        prompts: One trajectory each; repeat a prompt for several. ``prompt_index`` counts in this list.
        steps: See `rollout`.
        guidance: See `rollout`.
        generator: See `rollout`.
        jitter: See `rollout`.
        batch_size: See `rollout`.
        progress: See `rollout`.

    Returns:
        ``len(prompts) * steps`` entries.
    """
    return rollout(
        backbone,
        backbone.condition(list(prompts)),
        null_embedding=backbone.condition([""]),
        prompt_index=torch.arange(len(prompts)),
        steps=steps,
        guidance=guidance,
        generator=generator,
        jitter=jitter,
        batch_size=batch_size,
        progress=progress,
    )


@torch.no_grad()
def rollout(
    backbone: Backbone,
    embeddings: Conditions,
    *,
    null_embedding: Conditions,
    prompt_index: Tensor,
    steps: int,
    guidance: float,
    generator: torch.Generator,
    jitter: bool = True,
    batch_size: int = 16,
    keep: torch.dtype | None = None,
    progress: Progress | None = None,
) -> LatentBank:
    r"""Denoise from pure noise with DDIM under guidance, keeping every :math:`(x_t, t)` on the way.

    One step takes the guided prediction to :math:`(\hat x_0, \hat\epsilon)` and re-noises it to the next timestep,
    :math:`x_{t'} = \sqrt{\bar\alpha_{t'}}\,\hat x_0 + \sqrt{1 - \bar\alpha_{t'}}\,\hat\epsilon`. The timesteps start
    at T - 1; with ``jitter`` each later one is drawn from its own T/steps wide stratum, so that a bank of many
    trajectories covers all timesteps instead of ``steps`` of them.

    Args:
        backbone: The frozen teacher.
        embeddings: Encoded prompts.
        null_embedding: The encoded empty prompt.
        prompt_index: (trajectories,) the row of ``embeddings`` that each trajectory draws.
        steps: Number of steps, 1 to T.
        guidance: Guidance scale; 1 for none.
        generator: A CPU generator; fixes noise and timesteps whatever the batch size.
        jitter: Draw the timesteps inside their strata; off gives the "trailing" grid of diffusers.
        batch_size: Trajectories at a time (each costs two forward passes a step).
        keep: Number format of what is kept; None for the model's. The trajectory itself is denoised in the model's.
        progress: Called with (trajectories done, trajectories).

    Returns:
        The bank, on the CPU.

    Raises:
        DataError: If ``steps`` is out of range or there is no trajectory to roll out.

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502, eq. 12 with sigma = 0.
    """
    count, schedule = len(prompt_index), backbone.schedule
    check_rollout(count, steps, schedule)
    noise = torch.randn((count, *backbone.latent_shape), generator=generator)
    times = rollout_timesteps(count, steps, schedule, generator=generator if jitter else None)
    denoised = partial(_trajectories, backbone, null=null_embedding, guidance=guidance, keep=keep or backbone.dtype)
    parts: list[dict[str, Tensor]] = []
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        parts.append(denoised(embeddings[prompt_index[rows]], noise=noise[rows], times=times[rows]))
        if progress is not None:
            progress(min(start + batch_size, count), count)
    return _joined(parts, times=times, prompt_index=prompt_index)


def check_rollout(count: int, steps: int, schedule: Schedule) -> None:
    """Raise DataError unless there is a trajectory and its number of steps is one the schedule has."""
    if not 1 <= steps <= schedule.num_steps or count == 0:
        raise DataError(
            f"rollout: got {steps} steps for {count} prompts; wanted 1 to {schedule.num_steps} and a prompt"
        )


def _trajectories(
    backbone: Backbone,
    embeddings: Conditions,
    *,
    null: Conditions,
    noise: Tensor,
    times: Tensor,
    guidance: float,
    keep: torch.dtype,
) -> dict[str, Tensor]:
    """Denoise one batch; returns x_t, prediction and null_prediction as (batch * steps, ...), and x_0 (batch, ...)."""
    schedule, kind = backbone.schedule, backbone.prediction_type
    conditions = embeddings.to(backbone.device, backbone.dtype)
    null = expanded(null.to(backbone.device, backbone.dtype), len(conditions))
    kept: dict[str, list[Tensor]] = {"x_t": [], "prediction": [], "null_prediction": []}
    x_0 = x_t = noise.to(backbone.device, backbone.dtype)
    for i in range(times.shape[1]):
        t = times[:, i]
        found = backbone.predict_guided(x_t, t, conditions, null=null, scale=guidance)
        for name, tensor in (("x_t", x_t), ("prediction", found.prompted), ("null_prediction", found.null)):
            kept[name].append(tensor.to("cpu", keep))
        guided = found.guided
        x_0 = to_x0(guided, x_t, t, schedule, kind)
        if i + 1 < times.shape[1]:
            x_t = schedule.add_noise(x_0, to_epsilon(guided, x_t, t, schedule, kind), times[:, i + 1])
    joined = {name: torch.stack(steps, dim=1).flatten(0, 1) for name, steps in kept.items()}
    return joined | {"x_0": x_0.to("cpu", keep)}


def _joined(parts: Sequence[dict[str, Tensor]], *, times: Tensor, prompt_index: Tensor) -> LatentBank:
    """Return batches of trajectories as one bank; ``times`` are (trajectories, steps)."""
    count, steps = times.shape
    return LatentBank(
        **{name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        t=times.reshape(-1),
        prompt_index=prompt_index.repeat_interleave(steps),
        trajectory=torch.arange(count).repeat_interleave(steps),
    )


def rollout_timesteps(count: int, steps: int, schedule: Schedule, *, generator: torch.Generator | None) -> Tensor:
    """Return (count, steps) falling timesteps; with a generator all but the first are drawn inside their strata.

    Args:
        count: Trajectories.
        steps: Denoising steps of each.
        schedule: Tells how many timesteps there are.
        generator: Draws them; None gives the "trailing" grid of diffusers.
    """
    total = schedule.num_steps
    edges = torch.tensor([round(total - i * total / steps) for i in range(steps + 1)])
    times = (edges[:-1] - 1).expand(count, steps).clone()
    if generator is not None:
        width = (edges[:-1] - edges[1:]).expand(count, steps)
        shift = (torch.rand((count, steps), generator=generator) * width).long().clamp(max=width - 1)
        shift[:, 0] = 0
        times -= shift
    return times
