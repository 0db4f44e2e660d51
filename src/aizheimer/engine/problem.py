"""What the training loop needs to know about the thing it trains: nothing but this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

Role = Literal["erase", "retain", "adversarial"]
"""What a loss is for: to forget, to keep, or to deceive an adversary that learns along."""


@dataclass(frozen=True)
class Loss:
    """One weighted term of a step's loss.

    Args:
        value: The term, a scalar in the autograd graph, before its weight.
        weight: What it is multiplied by in the sum.
        parts: What the term is made of, by name, for the history.
        role: What it is for; gradient rules and the log tell losses apart by it.
    """

    value: Tensor
    weight: float = 1.0
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    role: Role = "erase"


class Problem(Protocol):
    """Parameters, what a step costs, and how to tell whether it goes well."""

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters to train, by name; nothing else may ask for gradients."""
        ...

    def losses(self, step: int, generator: torch.Generator) -> Mapping[str, Loss]:
        """Return the terms of one batch; a function of the parameters, ``step`` (from 1) and the generator only."""
        ...

    def monitor(self) -> Mapping[str, float]:
        """Look at the held-out set.

        Returns:
            ``attention_mass`` (target's share of the attention, for early stopping) and ``retention_drift`` (relative
            squared error to the teacher, for the guard), either of which may be missing, and anything else by name.
        """
        ...

    def retention_errors(self, rows: int) -> Iterable[Tensor]:
        """Return the held-out retain error in parts, scalars in the autograd graph; nothing if none is watched.

        Its gradient is what erasing is compared with in the log where no loss retains, and is never stepped along.

        Args:
            rows: Examples that may be in the graph at a time.
        """
        ...


class Companion(Protocol):
    """Something that learns beside the parameters, an adversary for instance, and is part of the run's state."""

    def advance(self, step: int) -> None:
        """Learn from the step's batches; called after the parameters' update."""
        ...

    def tensors(self) -> Mapping[str, Tensor]:
        """Return everything a resumed run needs, by name."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned, bit for bit."""
        ...
