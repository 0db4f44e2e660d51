"""Ask a network for the target of a noise-target term, at every step or once for a whole bank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions, expanded, joined
from aizheimer.data.latents import LatentBank
from aizheimer.data.sources import Draw
from aizheimer.engine.anchor import anchor_predictions
from aizheimer.engine.batch_shares import predict
from aizheimer.objectives.noise_target import negative_guidance


@dataclass(frozen=True, kw_only=True)
class LiveGuidance:
    r"""Negative guidance of the frozen model, asked for at every step.

    Args:
        backbone: The network, trained in place.
        teacher: Makes it the frozen model for the length of a ``with`` block.
        concept: Prompts :math:`c`; the draw's ``prompt_index`` counts in it.
        neutral: The empty prompt alone; or a neutral one in place of each prompt.
        eta: See `aizheimer.objectives.noise_target.negative_guidance`.
        start: Prompts, what the target starts from; None for ``neutral``.
    """

    backbone: Backbone
    teacher: Callable[[], AbstractContextManager[None]]
    concept: Conditions
    neutral: Conditions
    eta: float
    start: Conditions | None = None

    @torch.no_grad()
    def predict(self, draw: Draw) -> Tensor:
        """Return the targets of a draw: one forward pass of two rows (three with ``start``) for each example."""
        index = draw.prompt_index
        own = expanded(self.neutral, len(draw)) if len(self.neutral) == 1 else self.neutral[index]
        prompts: list[Conditions] = [self.concept[index], own]
        if self.start is not None:
            prompts.append(self.start[index])
        copies = len(prompts)
        with self.teacher():
            inputs, times = torch.cat([draw.x_t] * copies), torch.cat([draw.t] * copies)
            predictions = predict(self.backbone, inputs, times, joined(prompts).to(draw.x_t)).chunk(copies)
        start = predictions[2] if copies == 3 else None
        return negative_guidance(predictions[0], predictions[1], eta=self.eta, start=start)


@dataclass(frozen=True, kw_only=True)
class CurrentPrediction:
    r"""What the network predicts as it is now under other words, :math:`\operatorname{sg} \epsilon_\theta(c^*)`.

    Args:
        backbone: The network, trained in place.
        embeddings: The other words; the draw's ``prompt_index`` counts in it.
    """

    backbone: Backbone
    embeddings: Conditions

    @torch.no_grad()
    def predict(self, draw: Draw) -> Tensor:
        """Return the predictions of a draw, without gradients."""
        return predict(self.backbone, draw.x_t, draw.t, self.embeddings[draw.prompt_index].to(draw.x_t))


@dataclass(frozen=True, kw_only=True)
class GuidedAway:
    """Targets of negative guidance by the entries of a bank, each made when it is asked for, in float32.

    Args:
        prediction: (entries, ...) under the concept.
        neutral: (entries, ...) under the empty prompt.
        start: (entries, ...) what the target starts from; None for ``neutral``.
        eta: See `aizheimer.objectives.noise_target.negative_guidance`.
    """

    prediction: Tensor
    neutral: Tensor
    start: Tensor | None
    eta: float

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.prediction)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the targets of these entries."""
        start = None if self.start is None else self.start[index].float()
        return negative_guidance(self.prediction[index].float(), self.neutral[index].float(), eta=self.eta, start=start)


def guided_away(
    backbone: Backbone, bank: LatentBank, *, eta: float, concept: Conditions | None, from_prompt: bool
) -> GuidedAway:
    r"""Return the targets of negative guidance for every entry of a teacher's bank; most of it is there already.

    Args:
        backbone: The teacher, before any training.
        bank: Its rollouts.
        eta: See `aizheimer.objectives.noise_target.negative_guidance`.
        concept: Prompts :math:`c`, if it is not what the bank was drawn for.
        from_prompt: Start from the bank's prompt, as in ESD's code of 2024, instead of the empty one.

    Returns:
        Rows of (channels, height, width) in float32, on the CPU.
    """
    prediction = bank.prediction
    if concept is not None:
        draw = Draw(x_t=bank.x_t, t=bank.t, prompt_index=bank.prompt_index)
        prediction = anchor_predictions(backbone, draw, embeddings=concept)
    start = bank.prediction if from_prompt else None
    return GuidedAway(prediction=prediction, neutral=bank.null_prediction, start=start, eta=eta)
