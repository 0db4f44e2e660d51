"""What an edit must reach and what it should cost little of, as one types it: ``UA>=0.95``, ``IRA drop``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aizheimer._names import folded
from aizheimer.errors import InputError, did_you_mean
from aizheimer.evaluation.functional.proportions import wilson_interval

if TYPE_CHECKING:
    from aizheimer.evaluation.results import EvaluationResult, Metric

FIGURES = ("ua", "ira", "cra", "near", "far")
"""Figures of an evaluation that can be asked for; each also as a drop: the unedited model's value minus the edit's."""

STRENGTH = "strength"
_QUANTITIES = (*FIGURES, *(f"{name} drop" for name in FIGURES if name != "ua"), STRENGTH)


@dataclass(frozen=True)
class Quantity:
    """A number that an edit has.

    Args:
        name: A figure in small letters, a figure followed by " drop", or "strength".
    """

    name: str

    @classmethod
    def parse(cls, text: str, *, option: str) -> Quantity:
        """Read what was typed, in any case.

        Args:
            text: Such as ``"IRA drop"``.
            option: What to call it in an error.

        Raises:
            InputError: There is no such quantity.

        Example:
            >>> Quantity.parse("IRA drop", option="--minimise").figure
            'ira'
        """
        name = folded(text)
        if name not in _QUANTITIES:
            hint = did_you_mean(name, _QUANTITIES)
            raise InputError(f"{option}: got '{text}', wanted one of {', '.join(_QUANTITIES)}.{hint}")
        return cls(name)

    @property
    def figure(self) -> str:
        """The figure of the evaluation it is read from; "" for the strength."""
        return "" if self.name == STRENGTH else self.name.removesuffix(" drop")

    @property
    def is_drop(self) -> bool:
        """Whether it is the unedited model's value minus the edited model's."""
        return self.name.endswith(" drop")

    @property
    def label(self) -> str:
        """How it is written for people: ``"IRA drop"``."""
        return self.name if self.figure in ("", "near", "far") else self.name.replace(self.figure, self.figure.upper())


@dataclass(frozen=True)
class Demand:
    """A quantity with the bound that it must reach.

    Args:
        quantity: What is bounded.
        sense: Whether the bound is the least or the most that is allowed.
        bound: In [0, 1] for figures, in [-1, 1] for drops.
    """

    quantity: Quantity
    sense: Literal[">=", "<="]
    bound: float

    @classmethod
    def parse(cls, text: str) -> Demand:
        """Read ``"UA>=0.95"`` or ``"IRA drop <= 0.02"``.

        Raises:
            InputError: It is no such thing, the figure is unknown, or the bound is no share.

        Example:
            >>> Demand.parse("UA>=0.95").bound
            0.95
        """
        match = re.fullmatch(r"\s*([a-z ]+?)\s*(>=|<=)\s*(-?\d+(?:\.\d+)?|-?\.\d+)\s*", text.casefold())
        if match is None:
            raise InputError(f"--require: got '{text}', wanted a figure, >= or <=, and a share, such as 'UA>=0.95'.")
        quantity, bound = Quantity.parse(match[1], option="--require"), float(match[3])
        if quantity.figure and not (-1.0 if quantity.is_drop else 0.0) <= bound <= 1.0:
            raise InputError(f"--require: got '{text}', wanted a bound from 0 to 1, such as 'UA>=0.95'.")
        return cls(quantity, ">=" if match[2] == ">=" else "<=", bound)

    def __str__(self) -> str:
        return f"{self.quantity.label} {self.sense} {self.bound:g}"

    def shortfall(self, values: Mapping[str, float]) -> float:
        """Return by how much the demand is missed; 0 or less if it is met."""
        value = values[self.quantity.name]
        return self.bound - value if self.sense == ">=" else value - self.bound

    def is_met(self, values: Mapping[str, float]) -> bool:
        """Whether the quantity reaches the bound; rounding in the last places does not decide."""
        return self.shortfall(values) <= 1e-9

    def is_hopeless(self, result: EvaluationResult) -> bool:
        """Whether a look at few pictures already rules the demand out, by Wilson's interval of its figure."""
        metric: Metric | None = getattr(result, self.quantity.figure) if self.quantity.figure else None
        if metric is None:
            return False
        low, high = wilson_interval(round(metric.value * metric.n), metric.n)
        worst, best = (metric.original - high, metric.original - low) if self.quantity.is_drop else (low, high)
        return best < self.bound if self.sense == ">=" else worst > self.bound


def values_of(result: EvaluationResult, *, strength: float) -> dict[str, float]:
    """Return every quantity that an evaluation could measure, by name."""
    values = {STRENGTH: strength}
    for name in FIGURES:
        metric: Metric | None = getattr(result, name)
        if metric is not None:
            values[name] = metric.value
            values |= {f"{name} drop": metric.original - metric.value} if name != "ua" else {}
    return values


def check_measured(quantities: list[Quantity], values: Mapping[str, float], *, reasons: list[str]) -> None:
    """Refuse a search for what nobody can measure here.

    Raises:
        InputError: A quantity has no value; the message has the evaluation's own reasons.
    """
    missing = [quantity.label for quantity in quantities if quantity.name not in values]
    if missing:
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise InputError(f"{' and '.join(missing)} cannot be measured on this model{why}; ask for something else.")
