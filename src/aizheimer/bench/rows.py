"""Where a job's row is kept, and how it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

from aizheimer.bench.plan import Cell

Row: TypeAlias = dict[str, Any]

ROW = "cell.json"
"""A cell's row in its run folder."""

RUNS = "runs"


def read_row(cell: Cell, *, folder: Path) -> Row | None:
    """Return the row of a job that was done, None if it was not or its file is torn."""
    try:
        row = json.loads((folder / RUNS / cell.key / ROW).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and row.get("status") in ("done", "failed") else None
