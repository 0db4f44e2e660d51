"""A trained method's batch as a plan cuts it, and where the methods' settings of it are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A trained method's batch: forget and retain examples in a part, parts in a step, and if it retains at all."""

    batch: int
    retain: int
    parts: int
    retains: bool

    @classmethod
    def of(cls, method: Any) -> Sizes:
        """Return what a method's settings say."""
        return cls(
            batch=method.training.batch_size,
            retain=method.retain_batch_size if is_flat(method) else method.retain.batch_size,
            parts=method.training.accumulation,
            retains=_retains(method),
        )

    def cuts(self) -> list[Sizes]:
        """Return the batch as it is, and in more and more equal parts that make the same step together."""
        whole = math.gcd(self.batch, self.retain) if self.retains else self.batch
        return [self._cut(parts) for parts in range(1, whole + 1) if whole % parts == 0]

    def _cut(self, parts: int) -> Sizes:
        retain = self.retain // parts if self.retains else self.retain
        return replace(self, batch=self.batch // parts, retain=retain, parts=self.parts * parts)


def is_flat(method: Any) -> bool:
    """Whether a method's retain settings are its own fields, instead of a plan's."""
    return "retain_batch_size" in type(method).model_fields


def _retains(method: Any) -> bool:
    """Whether a step has retain examples: unless a weight of 0 or another reconstruction says no."""
    if is_flat(method):
        return method.reconstruction in ("retain", "teacher") and method.reconstruction_weight > 0
    return getattr(method, "retain_weight", 1.0) > 0


def monitored(method: Any) -> int:
    """Return how many held-out examples of each kind a method looks at."""
    return method.monitor_examples if is_flat(method) else method.retain.monitor
