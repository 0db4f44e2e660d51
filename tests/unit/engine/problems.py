"""A real but tiny problem: move a vector to a goal, seen through noise."""

from collections.abc import Callable

import torch
from torch.nn import Parameter

from aizheimer.engine.problem import Loss


class Chase:
    """Least squares to ``goal`` with noisy observations.

    The monitor's attention mass is the distance to the goal relative to the start's, its drift the distance from the
    start.
    """

    def __init__(self, *, goal: float = 1.0, noise: float = 0.1, spoil: Callable[[int, Parameter], None] | None = None):
        self.x = Parameter(torch.zeros(4))
        self.idle = Parameter(torch.ones(2))  # never gets a gradient, as the last block's to_v
        self.parameters = {"x": self.x, "idle": self.idle}
        self.goal, self.noise, self.spoil = goal, noise, spoil
        self.steps: list[int] = []

    def losses(self, step, generator):
        self.steps.append(step)
        if self.spoil is not None:
            self.spoil(step, self.x)
        seen = self.goal + self.noise * torch.randn(4, generator=generator)
        error = (self.x - seen).square()
        parts = {"first": error[0].detach(), "rest": error[1:].mean().detach()}
        return {"chase": Loss(error.mean(), 2.0, parts), "idle": Loss(torch.zeros(()), 1.0)}

    def monitor(self):
        x = self.x.detach()
        return {
            "attention_mass": float((x - self.goal).abs().mean()),
            "retention_drift": float(x.square().mean()),
            "layers/only": float(x[0]),
        }

    def retention_errors(self, rows):
        return ()
