"""What a trained method has the frozen model draw before its first step: trajectories and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aizheimer.api._rehearsal import PICTURES
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.prepare import generate_count

ROLLOUT_BATCH = 16
"""Trajectories that `aizheimer.data.latents.rollout` denoises at a time."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How much is drawn.

    Args:
        forget: Trajectories of the concept's prompts; none where there are pictures.
        retain: Trajectories of retain prompts.
        pictures: Pictures, each a trajectory of its own that is kept whole.
        plan: Steps of both, and how trajectories are kept.
    """

    forget: int
    retain: int
    pictures: int
    plan: RolloutPlan

    @classmethod
    def of(cls, method: Any) -> Preparation:
        """Return what a method has drawn: the rollouts that it says it makes, and pictures of each of its concepts."""
        plan: RolloutPlan = getattr(method, "rolled_out", method.rollouts)
        places = [place for name in PICTURES if (place := getattr(method, name, None)) is not None]
        # A folder's pictures are read, and other words than generate:N are none at all.
        counts = [generate_count(place) or 0 for place in places]
        concepts = 1 + len(getattr(method, "also", ()))
        return cls(
            forget=0 if places else plan.forget + plan.holdout,
            retain=plan.retain + plan.holdout,
            pictures=sum(counts) * concepts,
            plan=plan,
        )

    @property
    def trajectories(self) -> int:
        """Trajectories, without pictures."""
        return self.forget + self.retain

    @property
    def most(self) -> int:
        """The most that is denoised at a time."""
        return min(ROLLOUT_BATCH, max(self.forget, self.retain, self.pictures))

    @property
    def steps(self) -> int:
        """Guided predictions in all."""
        return self.trajectories * self.plan.steps + self.pictures * self.plan.picture_steps

    def banks(self, latent: int) -> tuple[int, ...]:
        """Return the bytes of what is kept of forget prompts, of retain prompts and of pictures.

        A step keeps the latents and two predictions, a trajectory its end beside.

        Args:
            latent: Values in the latents of a picture.
        """
        width = 2 if self.plan.keep == "float16" else 4
        each = width * latent * (3 * self.plan.steps + 1)
        picture = 4 * latent * (3 * self.plan.picture_steps + 1)  # pictures are never rounded
        return self.forget * each, self.retain * each, self.pictures * picture
