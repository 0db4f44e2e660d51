"""The rows of a bench as files that other tools read: JSON lines, parquet, and a page."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aizheimer._files import atomic, write_text
from aizheimer._imports import require
from aizheimer.errors import InputError
from aizheimer.reports.leaderboard import write_leaderboard

JSONL, PARQUET, PAGE = "results.jsonl", "results.parquet", "leaderboard.html"

FIRST = ("method", "concept", "seed", "status", "error", "kind", "ua", "ira", "cra", "seconds_forget", "megabytes")
"""Columns that come first; the others follow in the order in which rows bring them."""


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write every row, each as one line of JSON, and as parquet where pyarrow is installed; and the leaderboard.

    Tidy: one row is one job, one column one value, and a figure means the same in every row. What a row does not have
    is null.

    Args:
        folder: The bench's folder.
        rows: In the order of the plan.

    Returns:
        The files, each written as a whole.

    Raises:
        InputError: If rows were not measured alike and so have no mean: the rows are written, the leaderboard is not,
            and one of before is removed.
    """
    table = tidy(rows)
    write_text(folder / JSONL, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table))
    files = [folder / JSONL]
    if has_parquet():
        files.append(write_parquet(folder / PARQUET, table))
    try:
        return [*files, write_leaderboard(folder / PAGE, table)]
    except InputError:
        (folder / PAGE).unlink(missing_ok=True)
        raise


def tidy(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the same columns each, None where a row has nothing.

    Example:
        >>> tidy([{"method": "a", "ua": 1.0}, {"method": "b", "error": "x"}])[1]["ua"] is None
        True
    """
    there = dict.fromkeys(name for row in rows for name in row)
    names = [*(name for name in FIRST if name in there), *(name for name in there if name not in FIRST)]
    return [{name: row.get(name) for name in names} for row in rows]


def has_parquet() -> bool:
    """Return whether pyarrow is installed, which writes parquet."""
    return importlib.util.find_spec("pyarrow") is not None


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as parquet, all of it or nothing.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
    """
    arrow = require("pyarrow", extra="parquet")
    parquet = require("pyarrow.parquet", extra="parquet")
    with atomic(path) as temporary:
        parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), str(temporary))
    return path
