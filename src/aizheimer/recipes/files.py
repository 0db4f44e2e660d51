"""Read what people write in YAML: recipes, suites, gates, benches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from aizheimer.errors import InputError
from aizheimer.recipes.schema import problems

M = TypeVar("M", bound=BaseModel)


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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as reason:
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
