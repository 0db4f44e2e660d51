"""One step's gradients: added up as they come, or kept apart by what each loss is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer._processes import processes
from aizheimer.engine.gradient_rules import SUM, GradientRule, added, cosine
from aizheimer.engine.problem import Loss, Problem


class StepGradients:
    """Collects the gradients of a step's batches and leaves the result in the parameters' ``grad``.

    Losses that share a role share a backward pass. Without a rule that asks for it there is one pass for all of them,
    and the parameters' ``grad`` is its plain result; only a step that is measured pays for one more, or, where no loss
    retains, for that of a few held-out examples.

    Args:
        parameters: Trained parameters by name; their ``grad`` is None.
        batches: Batches in the step, whose gradients are averaged.
        rule: What combines the gradients; None adds them up.
        measure: Whether to measure the cosine between what erases and what retains.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], *, batches: int, rule: GradientRule | None, measure: bool
    ) -> None:
        self.parameters, self.batches, self.rule, self.measure = parameters, batches, rule, measure
        self.by_role: dict[str, dict[str, Tensor]] = {}
        self.roles: set[str] = set()
        self.held_out: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Loss], total: Tensor) -> None:
        """Send one batch's losses backward; ``total`` is their weighted sum."""
        roles = {loss.role for loss in losses.values() if loss.value.requires_grad and loss.weight != 0}
        self.roles |= roles
        if self.rule is not None and self.rule.separate:
            for i, role in enumerate(sorted(roles)):
                self._collect_role(role, losses, keep_graph=i + 1 < len(roles))
            return
        if self.measure and "retain" in roles and len(roles) > 1:
            self._collect_role("retain", losses, keep_graph=True)
        if total.requires_grad:
            (total / self.batches).backward()

    def watch(self, problem: Problem, *, rows: int, precision: Callable[[], AbstractContextManager[Any]]) -> None:
        """Take the held-out retain error's gradient, for the cosine of a step that erases and has no loss that retains.

        It goes nowhere else: not into ``grad``, nor to the rule. A step that is not measured computes nothing here.

        Args:
            problem: Knows the error.
            rows: Examples at a time.
            precision: A context for the forward passes.
        """
        if not self.measure or not self.roles or "retain" in self.roles:
            return
        errors = iter(problem.retention_errors(rows))
        while True:
            with precision():
                error = next(errors, None)
            if error is None:
                return
            self._collect(self.held_out, error, keep_graph=False)

    def finish(self) -> float | None:
        """Average over the processes, apply the rule, and return the cosine if it was measured and there is one."""
        for gradient in (*self.by_role.values(), self.held_out):
            processes().average(gradient.values())
        processes().average(p.grad for p in self.parameters.values() if p.grad is not None)
        found = None
        retain = self.by_role.get("retain")
        if self.rule is not None and self.rule.separate:
            if self.measure:
                others = [gradient for role, gradient in self.by_role.items() if role != "retain"]
                found = cosine(added(others), self.held_out if retain is None else retain)
            self._write(self.rule(self.by_role))
            return found
        whole = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        if self.measure and retain is not None:
            rest = {name: g - retain[name] if name in retain else g for name, g in whole.items()}
            found = cosine(rest, retain)
        elif self.measure:
            found = cosine(whole, self.held_out)
        if self.rule is not None:
            self._write(self.rule({SUM: whole}))
        return found if found is None or math.isfinite(found) else None

    def _collect_role(self, role: str, losses: Mapping[str, Loss], *, keep_graph: bool) -> None:
        self._collect(self.by_role.setdefault(role, {}), _weighted(losses, role), keep_graph=keep_graph)

    def _collect(self, kept: dict[str, Tensor], loss: Tensor, *, keep_graph: bool) -> None:
        gradients = torch.autograd.grad(
            loss / self.batches, list(self.parameters.values()), retain_graph=keep_graph, allow_unused=True
        )
        for name, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is not None:
                kept[name] = kept[name] + gradient if name in kept else gradient

    def _write(self, gradient: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad = gradient.get(name)


def _weighted(losses: Mapping[str, Loss], role: str) -> Tensor:
    chosen = [loss for loss in losses.values() if loss.role == role and loss.value.requires_grad and loss.weight != 0]
    return torch.stack([loss.value * loss.weight for loss in chosen]).sum()
