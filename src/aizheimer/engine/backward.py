"""One step's gradients: added up as they come, or kept apart by what each loss is for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer._processes import processes
from aizheimer.engine.gradient_rules import SUM, GradientRule, added, cosine
from aizheimer.engine.problem import Loss


class StepGradients:
    """Collects the gradients of a step's batches and leaves the result in the parameters' ``grad``.

    Losses that share a role share a backward pass. Without a rule that asks for it there is one pass for all of them,
    and the parameters' ``grad`` is its plain result; only a step that is measured pays for one more.

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

    def add(self, losses: Mapping[str, Loss], total: Tensor) -> None:
        """Send one batch's losses backward; ``total`` is their weighted sum."""
        roles = {loss.role for loss in losses.values() if loss.value.requires_grad and loss.weight != 0}
        if self.rule is not None and self.rule.separate:
            for i, role in enumerate(sorted(roles)):
                self._collect(role, _weighted(losses, role), keep_graph=i + 1 < len(roles))
            return
        if self.measure and "retain" in roles and len(roles) > 1:
            self._collect("retain", _weighted(losses, "retain"), keep_graph=True)
        if total.requires_grad:
            (total / self.batches).backward()

    def finish(self) -> float | None:
        """Average over the processes, apply the rule, and return the cosine if it was measured and there is one."""
        for gradient in self.by_role.values():
            processes().average(gradient.values())
        processes().average(p.grad for p in self.parameters.values() if p.grad is not None)
        found = None
        retain = self.by_role.get("retain")
        if self.rule is not None and self.rule.separate:
            if self.measure and retain is not None:
                others = [gradient for role, gradient in self.by_role.items() if role != "retain"]
                found = cosine(added(others), retain)
            self._write(self.rule(self.by_role))
            return found
        whole = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        if self.measure and retain is not None:
            rest = {name: g - retain[name] if name in retain else g for name, g in whole.items()}
            found = cosine(rest, retain)
        if self.rule is not None:
            self._write(self.rule({SUM: whole}))
        return found if found is None or math.isfinite(found) else None

    def _collect(self, role: str, loss: Tensor, *, keep_graph: bool) -> None:
        gradients = torch.autograd.grad(
            loss / self.batches, list(self.parameters.values()), retain_graph=keep_graph, allow_unused=True
        )
        kept = self.by_role.setdefault(role, {})
        for name, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is not None:
                kept[name] = kept[name] + gradient if name in kept else gradient

    def _write(self, gradient: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad = gradient.get(name)


def _weighted(losses: Mapping[str, Loss], role: str) -> Tensor:
    chosen = [loss for loss in losses.values() if loss.role == role and loss.value.requires_grad and loss.weight != 0]
    return torch.stack([loss.value * loss.weight for loss in chosen]).sum()
