"""What a recipe file may say, and how its mistakes are told: all at once, each with a suggestion."""

from __future__ import annotations

import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aizheimer.errors import did_you_mean

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
"""Shows a value in an error: a long one cut, a deep one not to its ground."""


class RecipeFile(BaseModel):
    """The contents of a recipe file.

    Example:
        >>> RecipeFile(method="aizheimer", parameters={"loss": "distraction"}).description
        ''
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(description="Name of the method.")
    description: str = Field(default="", description="One line on what the recipe is for.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="The method's hyper-parameters.")


def parameter_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key of a method's hyper-parameters, dotted for nested ones.

    Example:
        >>> list(parameter_keys(RecipeFile))
        ['method', 'description', 'parameters']
    """
    for name, info in model.model_fields.items():
        yield prefix + name
        if inner := _nested_model(info.annotation):
            yield from parameter_keys(inner, f"{prefix}{name}.")


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return what is wrong, one sentence a problem: the key as typed, what was got, what was wanted."""
    keys = list(parameter_keys(model))
    # An alternative of a union that did not match is told once for every alternative.
    return list(dict.fromkeys(_problem(entry, keys) for entry in error.errors()))


def _problem(entry: Mapping[str, Any], keys: list[str]) -> str:
    key = ".".join(str(part) for part in entry["loc"] if _is_key(part))
    if entry["type"] == "extra_forbidden":
        shown = key if len(key) <= _SHORT.maxstring else f"{key[: _SHORT.maxstring]}..."
        return f"unknown key '{shown}'.{_suggest(key, keys)}".rstrip(".")
    if entry["type"] == "missing":
        return f"{key} is missing"
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error":
        return f"{key}: {message}" if key else message
    wanted = message[0].lower() + message[1:]
    near = ""
    if entry["type"] == "literal_error" and isinstance(entry["input"], str):
        options = [part.strip("' ") for part in entry["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = "." + did_you_mean(entry["input"], options) if did_you_mean(entry["input"], options) else ""
    return f"{key}: got {_SHORT.repr(entry['input'])}, {wanted}{near}"


def _is_key(part: Any) -> bool:
    """Leave out what pydantic adds to name an alternative of a union, such as "list[str]"."""
    return isinstance(part, int) or (isinstance(part, str) and part not in {"str", "list[str]"})


def _suggest(key: str, keys: list[str]) -> str:
    leaf = key.rsplit(".", 1)[-1]
    same_leaf = [known for known in keys if known.rsplit(".", 1)[-1] == leaf]
    if same_leaf:
        return f" Did you mean {' or '.join(map(repr, same_leaf))}?"
    if near := did_you_mean(key, keys):
        return near
    leaves = {known.rsplit(".", 1)[-1]: known for known in keys}
    near = did_you_mean(leaf, leaves)
    return f" Did you mean '{leaves[near.split(chr(39))[1]]}'?" if near else ""


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
