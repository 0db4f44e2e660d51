"""Whether a result that is there already may stand for a measurement: only if it was made from the very same things."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel

from aizheimer._records import flat
from aizheimer.edits.storage import RECORD, TENSORS
from aizheimer.errors import DataError

R = TypeVar("R", bound=BaseModel)
Say: TypeAlias = Callable[[str], None]
"""Told in one line what happens beside the measurement."""

MADE_FROM = "made_from"
"""The field of a result that holds what no other field says: digests of files, of edits and of judges."""

SHOWN = 3
"""Differences named in a line."""

_FREE = "settings.batch_size"  # changes no picture


def quiet(_: str) -> None:
    """Hear nothing."""


def digest_of(value: Any) -> str:
    """Return 16 hexadecimal digits that name a value of JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def contents_of(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return what is in the files and folders that parameters name, as 16 hexadecimal digits each.

    A path alone does not say what was read from it: the pictures in a folder can be others now.

    Args:
        parameters: As ``model_dump()`` gives them, so that paths are `Path`; names of YAML files count too.

    Returns:
        By ``"content of <parameter>"``; ``"missing"`` for what is not there.

    Example:
        >>> contents_of({"steps": 3, "folder": Path("/not/there")})
        {'content of folder': 'missing'}
    """
    return {
        f"content of {name}": _content(Path(value))
        for name, value in flat(parameters)
        if isinstance(value, Path) or (isinstance(value, str) and value.endswith((".yaml", ".yml")))
    }


def why_again(result: BaseModel, asked: Mapping[str, Any]) -> str:
    """Say why a result cannot stand for a measurement.

    Args:
        result: What is there; its field ``made_from`` is empty in files of before it was written.
        asked: What decides the measurement, by the result's own fields, as JSON values.

    Returns:
        What differs, with both values; empty if nothing does.
    """
    there = result.model_dump(mode="json")
    if unnamed := [name for name, value in asked[MADE_FROM].items() if not value]:
        return f"nothing names its {' and its '.join(unnamed)}"
    if not there[MADE_FROM]:
        return "its file does not say what it was made from"
    before = dict(flat({name: there[name] for name in asked}))
    now = dict(flat(asked))
    names = [name for name in {**before, **now} if name != _FREE and before.get(name) != now.get(name)]
    texts = [
        f"{name.removeprefix(f'{MADE_FROM}.')} was {before.get(name)!r} and is {now.get(name)!r}" for name in names
    ]
    more = f", and {len(texts) - SHOWN} more differ" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def found_before(
    file: Path,
    load: Callable[[Path], R],
    *,
    asked: Callable[[], Mapping[str, Any]],
    say: Say,
    lacks: Callable[[R], str] | None = None,
) -> R | None:
    """Return the result that is there already, if it is the one that a measurement would give.

    Args:
        file: Where it is kept.
        load: Reads it.
        asked: What decides the measurement, as for `why_again`; only called if there is a file.
        say: Told in one line why it is measured again, if it is.
        lacks: Says what else the result would have to hold, "" if it does.

    Returns:
        The result, None if there is none or it is another one's.
    """
    if not file.is_file():
        return None
    try:
        found = load(file)
    except DataError as error:
        say(f"{error}; it is measured again now")
        return None
    reason = why_again(found, asked()) or (lacks(found) if lacks is not None else "")
    if reason:
        say(f"{file.name} is measured again: {reason}")
    return None if reason else found


def _content(path: Path) -> str:
    """Name everything in a file or folder; hidden files are left out."""
    if not path.exists():
        return "missing"
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(f"{file.relative_to(path)}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / RECORD).is_file():  # a run folder: what was found about its edit later is no part of the edit
        return [file for file in (path / RECORD, path / TENSORS) if file.is_file()]
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
