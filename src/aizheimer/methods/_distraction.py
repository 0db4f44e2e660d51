"""The problem that closed-form distraction solves, once its rows and moments are there."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aizheimer.data.rows import RowPairs
from aizheimer.methods._closed_form import outcome, stacked
from aizheimer.modules.query_metric import TextPencil, solve_keys
from aizheimer.modules.ridge import RidgeSums

FIRMNESS = (0.1, 1e3)
"""Where the firmness is looked for."""
EVENLY = 6
"""Times that the weights of several targets are set anew."""

Solution = tuple[dict[str, Tensor], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Distraction:
    """Keys and values that should answer the targets' rows as others, and retained rows as before.

    Args:
        weights: Original weights by name.
        metrics: The queries' second moments by layer; where there is none, all directions count alike.
        held: (dim, dim) the Gram matrix of what is held.
        ridge: Lambda.
        targets: Rows of each target, and what should answer in their place.
        retained: (n, dim) rows on which the drift is measured.
        fixed: Changes that are known already, by name.
    """

    weights: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]
    held: Tensor
    ridge: float
    targets: Sequence[RowPairs]
    retained: Tensor
    fixed: Mapping[str, Tensor]

    def solved(self, erase: Sequence[RidgeSums], *, residual: float | None, drift: float | None) -> Solution:
        """Solve, and hold the rest as firmly as leaves a share of what the targets' words say.

        Of several targets each has a weight of its own, by which they are left alike: one that is easily moved would
        else be moved further than it need be, at the rest's cost, and one that is not would be left.

        Args:
            erase: Mean moments of each target's rows.
            residual: What may be left; None solves as it is.
            drift: Of several targets, how far retained rows may move: the rest is held more firmly, and more is left,
                where they would move further. None is no limit.

        Returns:
            Changes by name; and ``residual`` and ``drift`` as `outcome` measures them, ``firmness``, and of several
            targets ``most_residual``, that of the one with the most.
        """
        weights = torch.ones(len(erase), dtype=torch.float64)
        changes, told = self._firm(erase, weights, residual=residual, drift=None)
        if len(erase) == 1 or residual is None:
            return changes, told
        tried = []
        for _ in range(EVENLY):
            left = self._left(changes)
            tried.append((float(left.max()), weights))
            weights = weights * left / residual
            weights = weights / weights.log().mean().exp()
            changes = self._changes(self._pencil(erase, weights).held(told["firmness"]))
        # What no weight moves would take ever more of it, at the cost of the others.
        _, weights = min([*tried, (float(self._left(changes).max()), weights)], key=lambda one: one[0])
        changes, told = self._firm(erase, weights, residual=residual, drift=drift)
        return changes, {**told, "most_residual": float(self._left(changes).max())}

    def _pencil(self, erase: Sequence[RidgeSums], weights: Tensor) -> TextPencil:
        parts = [sums.times(float(weight)) for sums, weight in zip(erase, weights, strict=True)]
        return TextPencil.of(functools.reduce(operator.add, parts), self.held, ridge=self.ridge)

    def _firm(
        self, erase: Sequence[RidgeSums], weights: Tensor, *, residual: float | None, drift: float | None
    ) -> Solution:
        """Solve for some weights of the targets, and hold the rest as firmly as leaves the residual, or drifts less."""
        pencil, pairs = self._pencil(erase, weights), stacked(self.targets)

        def at(firmness: float) -> Solution:
            changes = self._changes(pencil.held(firmness))
            return changes, outcome(self.weights, changes, pairs=pairs, retained=self.retained)

        firmness = 1.0 if residual is None else largest(lambda f: at(f)[1]["residual"], residual)
        changes, found = at(firmness)
        if drift is not None and found["drift"] > drift:
            # The drift grows with one over the firmness, as the residual does with the firmness.
            firmness = 1 / largest(lambda soft: at(1 / soft)[1]["drift"], drift, (1 / FIRMNESS[1], 1 / firmness))
            changes, found = at(firmness)
        return changes, {**found, "firmness": firmness}

    def _left(self, changes: Mapping[str, Tensor]) -> Tensor:
        """Return the residual of each target."""
        none = self.retained[:0]
        each = [outcome(self.weights, changes, pairs=one, retained=none)["residual"] for one in self.targets]
        return torch.tensor(each, dtype=torch.float64)

    def _changes(self, pencil: TextPencil) -> dict[str, Tensor]:
        """Return the change of every projection: keys by their layer's metric, values by the identity."""
        changes = {}
        for name, weight in self.weights.items():
            # The identity, as heads of one row: nothing to decompose.
            metric = torch.ones(len(weight), 1, 1, dtype=torch.float64)
            if name.endswith("to_k.weight"):
                metric = self.metrics.get(name.rsplit(".", 2)[0], metric)
            changes[name] = solve_keys(weight, metric, pencil)
        return changes | dict(self.fixed)


def largest(measure: Callable[[float], float], within: float, span: tuple[float, float] = FIRMNESS) -> float:
    """Return the largest argument whose measure, which grows with it, is within a bound: to 3 %, by bisection.

    The smallest that is looked at if even that is not within: the edit then says so, and a caller may train on.

    Example:
        >>> round(largest(lambda x: x * x, 9.0), 1)
        3.0
    """
    low, high = (math.log(edge) for edge in span)
    if measure(math.exp(high)) <= within:
        return math.exp(high)
    while high - low > 0.03:
        middle = (low + high) / 2
        if measure(math.exp(middle)) <= within:
            low = middle
        else:
            high = middle
    return math.exp(low)
