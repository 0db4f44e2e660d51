"""When to stop, and which state to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from aizheimer.engine.settings import TrainSettings


@dataclass(frozen=True)
class Verdict:
    """What one look at the held-out set says.

    Args:
        mass_ratio: Attention mass relative to step 0; None when the problem has none.
        stop: Why to stop (``"mass"``, ``"drift"``, ``"diverged"``), or empty to go on.
        keep: Whether this is the best state so far.
    """

    mass_ratio: float | None
    stop: str = ""
    keep: bool = False

    @property
    def roll_back(self) -> bool:
        """Whether to return to the best state."""
        return self.stop in ("drift", "diverged")


@dataclass
class Guard:
    """Early stopping, and protection of what must stay.

    The **best state** is the monitored state with the lowest attention mass among those whose retention drift is within
    the limit (the latest of equals, and the latest of all when the problem has no attention mass). It is what a
    run rolls back to when a later look exceeds the limit or is not finite. A run that ends in any other way keeps its
    last state, which has passed the guard too.

    Args:
        settings: ``stop_mass_ratio``, ``drift_limit`` and ``allow_overfit``.
        baseline: Attention mass at step 0.
        best_step: The step of the best state.
        best_ratio: Its mass ratio.
        best: Its parameters.
    """

    settings: TrainSettings
    baseline: float | None = None
    best_step: int = 0
    best_ratio: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    def look(self, values: Mapping[str, float]) -> Verdict:
        """Judge one look; the first one sets the baseline."""
        mass = values.get("attention_mass")
        if self.baseline is None:
            self.baseline = mass
        ratio = _ratio(mass, self.baseline)
        if not all(math.isfinite(value) for value in values.values()):
            return Verdict(ratio, stop="diverged")
        limit = self.settings.drift_limit
        if limit is not None and not self.settings.allow_overfit and values.get("retention_drift", 0.0) > limit:
            return Verdict(ratio, stop="drift")
        wanted = self.settings.stop_mass_ratio
        reached = wanted is not None and ratio is not None and ratio <= wanted
        keep = ratio is None or self.best_ratio is None or ratio <= self.best_ratio
        return Verdict(ratio, stop="mass" if reached else "", keep=keep)

    def keep(self, step: int, ratio: float | None, parameters: Mapping[str, Tensor]) -> None:
        """Remember the parameters as the best state."""
        self.best_step, self.best_ratio = step, ratio
        self.best = {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _ratio(mass: float | None, baseline: float | None) -> float | None:
    if mass is None or baseline is None:
        return None
    return mass / baseline if baseline > 0 else 1.0
