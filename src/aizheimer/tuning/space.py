"""What is searched, for every method in one place: the strength of the edit, and fields of the method."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aizheimer.errors import InputError, RecipeError
from aizheimer.recipes.schema import parameter_keys, problems


class Range(BaseModel):
    """Numbers between two ends, both included.

    Example:
        >>> Range.parse("residual=0.05..0.5")
        ('residual', Range(low=0.05, high=0.5, log=False, whole=False))
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float = Field(description="The least value.")
    high: float = Field(description="The largest value.")
    log: bool = Field(default=False, description="Search its logarithm.")
    whole: bool = Field(default=False, description="Whole numbers only.")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"got {self.low:g}..{self.high:g}, wanted the smaller end first, above 0 for :log")
        return self

    @classmethod
    def parse(cls, text: str) -> tuple[str, Range]:
        """Read ``"KEY=LOW..HIGH"``, with ``:log`` for a logarithmic scale; two whole ends mean whole numbers.

        Raises:
            InputError: It is no such thing.
        """
        match = re.fullmatch(r"([\w.]+)=(-?[\d.]+?(?:e-?\d+)?)\.\.(-?[\d.]+(?:e-?\d+)?)(:log)?", text.strip())
        try:
            if match is None:
                raise ValueError("no range")
            whole = all(re.fullmatch(r"-?\d+", end) for end in (match[2], match[3]))
            return match[1], cls(low=float(match[2]), high=float(match[3]), log=bool(match[4]), whole=whole)
        except ValueError:
            wanted = "a key and its range, the smaller end first: residual=0.05..0.5, or training.lr=1e-5..1e-3:log"
            raise InputError(f"--search: got '{text}', wanted {wanted}.") from None

    def clipped(self, value: float) -> float:
        """Return the nearest value in the range."""
        return min(max(value, self.low), self.high)


Space = Mapping[str, Range]

STRENGTH_RANGE = Range(low=0.1, high=1.5)
"""Times the edit as the method makes it, which needs no training of its own: one edit serves all strengths."""

_RATE = {"training.lr": Range(low=1e-5, high=5e-3, log=True)}

FIELDS: Mapping[str, Space] = {
    "aizheimer": {"start.residual": Range(low=0.03, high=0.6, log=True)},
    "closed-distraction": {"residual": Range(low=0.03, high=0.6, log=True)},
    "uce": {"preserve_scale": Range(low=0.01, high=10.0, log=True)},
    "oce": {"preserve_scale": Range(low=1.0, high=1e4, log=True), "general_scale": Range(low=1.0, high=1e3, log=True)},
    "rece": {"preserve_scale": Range(low=0.01, high=10.0, log=True)},
    "esd": _RATE,
    "concept-ablation": _RATE,
    "forget-me-not": _RATE,
    "salun": {"training.lr": Range(low=1e-6, high=1e-3, log=True)},
    "doco": _RATE,
    "spm": _RATE,
    "receler": _RATE,
    "surgery": {"hold_weight": Range(low=0.1, high=10.0, log=True)},
    "hirm": {"retain_weight": Range(low=1.0, high=1e5, log=True)},
    "advunlearn": {"retain_weight": Range(low=0.1, high=100.0, log=True)},
    "adavd": {"centre": Range(low=0.3, high=0.95)},
    "judge-filter": {"threshold": Range(low=0.02, high=0.98)},
}
"""Fields that are searched beside the strength, by method: those that trade forgetting for keeping."""

WITHOUT_STRENGTH = frozenset({"judge-filter"})
"""Methods whose edit acts wholly or not at all."""


def space_for(name: str, method: BaseModel, own: Sequence[str] = ()) -> dict[str, Range]:
    """Return what is searched for a method.

    Args:
        name: The method's name.
        method: The method as it is given; a field inside a group that is null in it is not searched by default.
        own: Ranges as they are typed. They replace the declared fields; ``strength`` is one of them.

    Returns:
        Ranges by dotted key, the strength first.

    Raises:
        InputError: A range is malformed.
        RecipeError: The method has no such field, or it is inside a group that is null.

    Example:
        >>> from aizheimer.methods.uce import UCE
        >>> list(space_for("uce", UCE()))
        ['strength', 'preserve_scale']
    """
    given = dict(Range.parse(text) for text in own)
    known = set(parameter_keys(type(method)))
    if unknown := [key for key in given if key != "strength" and key not in known]:
        raise RecipeError(f"--search: {name} has no {', '.join(unknown)}; `aizheimer show {name}` lists what it has.")
    if absent := [key for key in given if key != "strength" and not _is_there(method, key)]:
        raise RecipeError(f"--search: {absent[0]} is in a group that is null in this recipe; set the group first.")
    fields = given or {key: own for key, own in FIELDS.get(name, {}).items() if _is_there(method, key)}
    strength = {} if name in WITHOUT_STRENGTH else {"strength": STRENGTH_RANGE}
    return {**strength, **fields}


def _is_there(method: BaseModel, key: str) -> bool:
    first, _, rest = key.partition(".")
    inner = getattr(method, first)
    return not rest or (isinstance(inner, BaseModel) and _is_there(inner, rest))


def with_values(method: Any, values: Mapping[str, float]) -> Any:
    """Return the method with these values in its fields, by dotted key; the strength is none of them.

    Raises:
        RecipeError: The method does not allow such a value.
    """
    parameters = method.model_dump(mode="json")
    for key, value in values.items():
        if key != "strength":
            *groups, last = key.split(".")
            place = parameters
            for group in groups:
                place = place[group]
            place[last] = value
    try:
        return type(method).model_validate(parameters)
    except ValidationError as error:
        raise RecipeError(f"{'; '.join(problems(error, type(method)))}; give --search another range.") from error


def suggested(trial: Any, space: Space) -> dict[str, float]:
    """Let the sampler of an ``optuna.trial.Trial`` choose a value for each key."""
    return {
        key: trial.suggest_int(key, int(own.low), int(own.high), log=own.log)
        if own.whole
        else trial.suggest_float(key, own.low, own.high, log=own.log)
        for key, own in space.items()
    }


def as_it_is(space: Space, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Return the point of the space that is the method as it was given: strength 1 and its own values.

    Args:
        space: What is searched.
        parameters: The method's hyper-parameters by dotted key; those without a number are left to the sampler.
    """
    found = {"strength": 1.0, **parameters}
    numbers = {key: value for key, value in found.items() if isinstance(value, int | float) and key in space}
    return {key: space[key].clipped(value) for key, value in numbers.items()}
