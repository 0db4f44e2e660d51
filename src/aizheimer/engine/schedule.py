"""The learning rate at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aizheimer.engine.settings import TrainSettings


def scheduled_rate(step: int, settings: TrainSettings) -> float:
    r"""Return the rate of a step before any plateau.

    Warm-up rises linearly, :math:`\eta\, s / s_w`; after it ``cosine`` falls as
    :math:`\eta\,(1 + \cos(\pi\,p))/2`, with p going from 0 at the end of the warm-up to 1 just after the last step.

    Args:
        step: The step, from 1.
        settings: Names the schedule.

    Example:
        >>> scheduled_rate(1, TrainSettings(lr=0.1, warmup=2)), scheduled_rate(2, TrainSettings(lr=0.1, warmup=2))
        (0.05, 0.1)
    """
    if step <= settings.warmup:
        return settings.lr * step / settings.warmup
    if settings.schedule != "cosine":
        return settings.lr
    progress = (step - settings.warmup - 1) / max(settings.steps - settings.warmup, 1)
    return settings.lr * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Plateau:
    """The state of the plateau schedule: lower the rate when an epoch's mean loss stops improving.

    It does what ``torch.optim.lr_scheduler.ReduceLROnPlateau`` does in relative ``min`` mode, once an epoch, with a
    state that is four numbers and the losses of the epoch so far.

    Args:
        scale: What the scheduled rate is multiplied by.
        best: Lowest epoch mean so far; None before the first epoch has ended.
        bad_epochs: Epochs since then.
        losses: Losses of the current epoch.
    """

    scale: float = 1.0
    best: float | None = None
    bad_epochs: int = 0
    losses: tuple[float, ...] = ()

    def after(self, loss: float, settings: TrainSettings) -> Plateau:
        """Return the state after a step's ``loss``; itself unless the schedule is ``plateau``."""
        if settings.schedule != "plateau":
            return self
        losses = (*self.losses, loss)
        if len(losses) < settings.plateau_every:
            return replace(self, losses=losses)
        mean = sum(losses) / len(losses)
        if self.best is None or mean < self.best * (1 - settings.plateau_threshold):
            return replace(self, best=mean, bad_epochs=0, losses=())
        if self.bad_epochs + 1 > settings.plateau_patience:
            return replace(self, scale=self.scale * settings.plateau_factor, bad_epochs=0, losses=())
        return replace(self, bad_epochs=self.bad_epochs + 1, losses=())
