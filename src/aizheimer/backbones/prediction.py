"""Predictions under guidance, for families that are guided by a second, unconditional prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from aizheimer._typing import Latents, Timesteps
from aizheimer.backbones.conditioning import Conditions, joined
from aizheimer.diffusion.guidance import guide


@dataclass(frozen=True, kw_only=True)
class Guided:
    """A prediction under guidance, and what it is made of.

    Args:
        guided: What a sampler goes on with.
        prompted: The plain prediction under the prompt: what training sees.
        null: The plain prediction under the empty prompt.
    """

    guided: Latents
    prompted: Latents
    null: Latents


class Predict(Protocol):
    """How predictions are asked for; `Backbone.predict` is one."""

    def __call__(self, x_t: Latents, t: Timesteps, conditions: Conditions, /) -> Latents:
        """Return the raw prediction at ``(x_t, t)`` under ``conditions``."""
        ...


def classifier_free(
    predict: Predict, x_t: Latents, t: Timesteps, conditions: Conditions, *, null: Conditions, scale: float
) -> Guided:
    """Return the prediction under classifier-free guidance: one pass of two rows for each example.

    Args:
        predict: The model.
        x_t: (batch, ...) noisy latents.
        t: (batch,) timesteps.
        conditions: (batch) prompts.
        null: (batch) empty prompts.
        scale: Guidance scale.
    """
    both = predict(torch.cat([x_t, x_t]), torch.cat([t, t]).to(x_t.device), joined([null, conditions]))
    unprompted, prompted = both.chunk(2)
    return Guided(guided=guide(unprompted, prompted, scale), prompted=prompted, null=unprompted)
