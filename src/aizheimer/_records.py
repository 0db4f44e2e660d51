"""Results as JSON files that explain themselves: written whole, read back or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from aizheimer._files import write_text
from aizheimer.errors import DataError

R = TypeVar("R", bound=BaseModel)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their dotted names.

    Example:
        >>> dict(flat({"training": {"steps": 3}, "seed": 0}))
        {'training.steps': 3, 'seed': 0}
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def parse_json(text: str) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: It is not JSON, or is nested more deeply than Python's reader can follow.

    Example:
        >>> parse_json("[1]")
        [1]
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def save_record(record: BaseModel, path: str | Path) -> None:
    """Write JSON, all of it or nothing."""
    write_text(Path(path), record.model_dump_json(indent=2) + "\n")


def load_record(kind: type[R], path: str | Path, *, missing: str, damaged: str) -> R:
    """Read what `save_record` wrote.

    Args:
        kind: What it should be.
        path: The file.
        missing: What to do if it cannot be opened: ``"run `aizheimer evaluate` first"``.
        damaged: What to say if it is something else; ``{reason}`` becomes the first field that is wrong.

    Raises:
        DataError: If the file is missing or is something else.
    """
    try:
        return kind.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {missing}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else "encoding"
        raise DataError(f"{path}: {damaged.format(reason=where or 'not JSON')}") from error
