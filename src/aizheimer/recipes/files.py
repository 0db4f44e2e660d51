"""Read what people write in YAML: recipes, suites, gates, benches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from aizheimer.errors import InputError
from aizheimer.recipes.schema import problems

M = TypeVar("M", bound=BaseModel)

MOST = 100_000
"""Values that a file may stand for: aliases of aliases make few bytes stand for more than any computer holds."""


def parse_yaml(text: str) -> Any:
    """Return what YAML says.

    Raises:
        ValueError: It is not YAML, refers to itself, or stands for more values than `MOST`.

    Example:
        >>> parse_yaml("steps: 3")
        {'steps': 3}
    """
    try:
        value = yaml.safe_load(text)
    # PyYAML lets errors of many kinds out for values that look like a number or a date and are none ("._", "0b_").
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _size(value, {}) > MOST:
        raise ValueError(f"its aliases stand for more than {MOST} values")
    return value


def _size(value: Any, known: dict[int, int]) -> int:
    """Return how many values there are when aliases are written out; what is looked at already is not walked again."""
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST + 1  # while its own parts are counted: one that holds itself is endless
        parts = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def read_mapping(path: Path, *, label: str, empty: str, error: type[InputError]) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Args:
        path: The file.
        label: What to call it in an error.
        empty: What to say that it holds if it holds no keys: ``"no recipe; wanted the keys ..."``.
        error: The kind of error to raise.

    Raises:
        InputError: (the ``error`` given) If it cannot be read, or is something else than keys and values.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise error(f"{label} is not a readable YAML file: {' '.join(str(reason).split())}") from reason
    if not isinstance(content, dict):
        raise error(f"{label} holds {empty}")
    return content


def checked(kind: type[M], content: dict[str, Any], *, label: str, error: type[InputError]) -> M:
    """Return the model that a file's content describes.

    Raises:
        InputError: (the ``error`` given) With every mistake there is, in one line.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as reason:
        raise error(f"{label}: {'; '.join(problems(reason, kind))}") from reason
