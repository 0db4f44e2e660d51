"""Where the examples of a training step come from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aizheimer._row_shares import RowShares, shares_weights
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions, expanded
from aizheimer.data.entries import Entries, Joined
from aizheimer.data.latents import LatentBank, check_rollout, rollout_timesteps
from aizheimer.diffusion.prediction import Schedule, to_epsilon, to_x0, training_target
from aizheimer.errors import DataError

NULL_EVERY = 4
"""One in so many entries of a teacher's bank is also used under the empty prompt."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A batch of denoiser inputs.

    Args:
        x_t: (batch, channels, height, width) noisy latents.
        t: (batch,) their timesteps.
        prompt_index: (batch,) which prompt goes with them.
        target: (batch, channels, height, width) what the prediction should be, or None where nobody says.
        mask: (batch, 1, height, width) one where the prediction counts; None where all of it does.
    """

    x_t: Tensor
    t: Tensor
    prompt_index: Tensor
    target: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.t)

    @property
    def answer(self) -> Tensor:
        """The target of a batch that has one."""
        if self.target is None:
            raise ValueError("got latents without noise of their own, which have no target")
        return self.target


def together(draws: Sequence[Draw]) -> Draw:
    """Return several batches as one; it has targets if all of them do."""
    targets = [draw.target for draw in draws if draw.target is not None]
    return Draw(
        x_t=torch.cat([draw.x_t for draw in draws]),
        t=torch.cat([draw.t for draw in draws]),
        prompt_index=torch.cat([draw.prompt_index for draw in draws]),
        target=torch.cat(targets) if len(targets) == len(draws) else None,
    )


class Source(Protocol):
    """Something that examples are drawn from."""

    def draw(self, count: int, *, step: int, generator: torch.Generator) -> Draw:
        """Return ``count`` examples, a function of ``step`` and the generator only."""
        ...


def random_entries(entries: int, count: int, *, generator: torch.Generator) -> Tensor:
    """Return (count,) numbers below ``entries`` at random, each as often as any other: none twice while they last."""
    rounds = -(-count // entries)
    return torch.cat([torch.randperm(entries, generator=generator) for _ in range(rounds)])[:count]


@dataclass(frozen=True, kw_only=True)
class BankSource:
    """Draws entries of a fixed bank, without repetition inside a batch while they last.

    Args:
        x_t: (entries, ...) noisy latents.
        t: (entries,) timesteps.
        prompt_index: (entries,) prompts.
        target: (entries, ...) targets, or None.
        device: Where drawn batches go.
        dtype: Number format of drawn batches: the denoiser's, whatever the bank is kept in.
    """

    x_t: Entries
    t: Tensor
    prompt_index: Tensor
    target: Entries | None
    device: torch.device
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(
        cls, bank: LatentBank, *, target: Entries | None, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> BankSource:
        """Return the source of a bank's entries under their own prompts, with other targets than the bank's."""
        return cls(x_t=bank.x_t, t=bank.t, prompt_index=bank.prompt_index, target=target, device=device, dtype=dtype)

    def draw(self, count: int, *, step: int, generator: torch.Generator) -> Draw:
        """Return ``count`` random entries; ``step`` does not matter."""
        index = random_entries(len(self.t), count, generator=generator)
        return Draw(
            x_t=self.x_t[index].to(self.device, self.dtype),
            t=self.t[index].to(self.device),
            prompt_index=self.prompt_index[index],
            target=None if self.target is None else self.target[index].to(self.device, self.dtype),
        )


@dataclass(frozen=True, kw_only=True)
class NoisedSource:
    """Draws clean latents, uniform timesteps and fresh noise: the forward process.

    The target is what the denoiser is trained to predict: the noise, the velocity or the clean latents.

    Args:
        latents: (images, channels, height, width) clean latents.
        prompt_index: (images,) the prompt of each image, or None to draw one of ``prompts`` each time.
        prompts: Number of prompts to draw from when ``prompt_index`` is None.
        schedule: The noise schedule.
        prediction_type: What the denoiser predicts, see `aizheimer.diffusion.prediction`.
        noise: False feeds the clean latents themselves, without a target (the paper's "without noise").
        below: Timesteps are below this; None for all of them.
        masks: (images, 1, height, width) one where a picture counts; None where all of it does.
        device: Where drawn batches go.
    """

    latents: Tensor
    prompt_index: Tensor | None
    prompts: int
    schedule: Schedule
    prediction_type: str
    noise: bool = True
    below: int | None = None
    masks: Tensor | None = None
    device: torch.device

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        latents: Tensor,
        *,
        prompt_index: Tensor | None,
        prompts: int,
        noise: bool = True,
        below: int | None = None,
    ) -> NoisedSource:
        """Return the source of latents noised as the backbone was trained."""
        return cls(
            latents=latents,
            prompt_index=prompt_index,
            prompts=prompts,
            schedule=backbone.schedule,
            prediction_type=backbone.prediction_type,
            noise=noise,
            below=below,
            device=backbone.device,
        )

    def draw(self, count: int, *, step: int, generator: torch.Generator) -> Draw:
        """Return ``count`` random images, each at a random timestep; ``step`` does not matter."""
        return self.noised(torch.randint(len(self.latents), (count,), generator=generator), generator=generator)

    def noised(self, index: Tensor, *, generator: torch.Generator) -> Draw:
        """Return the images of these numbers (batch,), each at a random timestep."""
        t = torch.randint(self.below or self.schedule.num_steps, index.shape, generator=generator)
        if self.prompt_index is None:
            prompt_index = torch.randint(self.prompts, index.shape, generator=generator)
        else:
            prompt_index = self.prompt_index[index]
        x_0 = self.latents[index]
        noise = torch.randn(x_0.shape, generator=generator).to(x_0.dtype)
        x_t = self.schedule.add_noise(x_0, noise, t) if self.noise else x_0
        wanted = training_target(x_0, noise, t, self.schedule, self.prediction_type) if self.noise else None
        target = None if wanted is None else wanted.to(self.device)
        mask = None if self.masks is None else self.masks[index].to(self.device)
        return Draw(x_t=x_t.to(self.device), t=t.to(self.device), prompt_index=prompt_index, target=target, mask=mask)


@dataclass(frozen=True, kw_only=True)
class StudentRolloutSource:
    r"""Lets the model draw as it is now, and stops each picture at a random step.

    From pure noise, DDIM under guidance w, as `aizheimer.data.latents.rollout`; a row that has reached its step waits
    for nobody and costs nothing more. The latents follow the model that is being edited, so the edit is trained where
    the edited model goes; it costs about ``steps`` forward passes of two rows for each example.

    Args:
        backbone: The model; whatever its weights are at the time.
        embeddings: Prompts, one drawn for each row.
        null_embedding: The empty prompt.
        steps: Denoising steps of a whole picture.
        guidance: w.

    Raises:
        DataError: If ``steps`` is out of range or there is no prompt.

    References:
        Gandikota et al., arXiv:2303.07345 (ESD), section 4.1. Lyu et al., arXiv:2312.16145 (SPM).
    """

    backbone: Backbone
    embeddings: Conditions
    null_embedding: Conditions
    steps: int = 50
    guidance: float = 3.0

    def __post_init__(self) -> None:
        """Refuse a rollout that cannot be."""
        check_rollout(len(self.embeddings), self.steps, self.backbone.schedule)

    @torch.no_grad()
    def draw(self, count: int, *, step: int, generator: torch.Generator) -> Draw:
        """Return ``count`` latents of the model's own; ``step`` does not matter."""
        backbone, schedule = self.backbone, self.backbone.schedule
        prompt_index = torch.randint(len(self.embeddings), (count,), generator=generator)
        stops = torch.randint(self.steps, (count,), generator=generator)
        times = rollout_timesteps(count, self.steps, schedule, generator=generator)
        noise = torch.randn((count, *backbone.latent_shape), generator=generator)
        x_t = noise.to(backbone.device, backbone.dtype)
        shares = RowShares.of(count)
        own = torch.arange(count) if shares is None else shares.own
        for i in range(int(stops.max())):
            rows = own[stops[own] > i]
            if not len(rows) and not shares_weights():
                continue
            asked = rows if len(rows) else own[:1]  # another process needs this one's weights
            later = self._advanced(x_t[asked.to(x_t.device)], times[asked, i : i + 2], prompt_index[asked])
            if len(rows):
                x_t[rows.to(x_t.device)] = later
        x_t = x_t if shares is None else shares.whole(shares.mine(x_t))
        t = times.gather(1, stops[:, None]).flatten()
        return Draw(x_t=x_t, t=t.to(x_t.device), prompt_index=prompt_index)

    def _advanced(self, x_t: Tensor, times: Tensor, prompt_index: Tensor) -> Tensor:
        """Take rows from the first of two timesteps to the second."""
        backbone, schedule, kind = self.backbone, self.backbone.schedule, self.backbone.prediction_type
        conditions = self.embeddings[prompt_index].to(x_t)
        null = expanded(self.null_embedding.to(x_t), len(conditions))
        t, later = times[:, 0], times[:, 1]
        guided = backbone.predict_guided(x_t, t, conditions, null=null, scale=self.guidance).guided
        x_0 = to_x0(guided, x_t, t, schedule, kind)
        return schedule.add_noise(x_0, to_epsilon(guided, x_t, t, schedule, kind), later)


def noise_only(backbone: Backbone, *, prompts: int) -> NoisedSource:
    r"""Return the source of noised nothing: :math:`x_t = \sqrt{1 - \bar\alpha_t}\,\epsilon`, as if the image were zero.

    It needs no image, and is off-distribution at every timestep but the last.

    Args:
        backbone: Names the shape, the schedule and what is predicted.
        prompts: Number of prompts; each row draws one.
    """
    latents = torch.zeros(1, *backbone.latent_shape)
    return NoisedSource.of(backbone, latents, prompt_index=None, prompts=prompts)


@dataclass(frozen=True)
class RefreshingSource:
    """Makes a new source every so many steps.

    Args:
        make: Returns the source of an epoch (0, 1, ...); must depend on the epoch only, so that a resumed run finds
            the same examples.
        every: Steps in an epoch.
    """

    make: Callable[[int], Source]
    every: int

    def __post_init__(self) -> None:
        """Remember the last epoch's source."""
        object.__setattr__(self, "make", functools.lru_cache(maxsize=1)(self.make))

    def draw(self, count: int, *, step: int, generator: torch.Generator) -> Draw:
        """Return ``count`` examples of the epoch that ``step`` (counted from 1) falls in."""
        return self.make((step - 1) // self.every).draw(count, step=step, generator=generator)


def teacher_source(
    bank: LatentBank, *, null_index: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> BankSource:
    """Return the bank's entries with the teacher's predictions as targets, plus entries of the empty prompt.

    Guidance subtracts the empty prompt's prediction, so a student that drifts there drifts everywhere. Every fourth
    entry joins a second time, with the empty prompt and the teacher's unconditional prediction.

    Args:
        bank: Entries under their own prompts.
        null_index: The row of the embeddings that holds the empty prompt.
        device: Where drawn batches go.
        dtype: Their number format.

    Raises:
        DataError: If the bank is empty.
    """
    if len(bank) == 0:
        raise DataError("the teacher's bank is empty; ask for at least one retain rollout")
    null = slice(None, None, NULL_EVERY)
    return BankSource(
        x_t=Joined((bank.x_t, bank.x_t[null])),
        t=torch.cat([bank.t, bank.t[null]]),
        prompt_index=torch.cat([bank.prompt_index, torch.full_like(bank.prompt_index[null], null_index)]),
        target=Joined((bank.prediction, bank.null_prediction[null])),
        device=device,
        dtype=dtype,
    )
