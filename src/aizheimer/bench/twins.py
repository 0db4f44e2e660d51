"""Seeds that made the very same edit: what was found about one holds for the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aizheimer import _files
from aizheimer.bench.plan import BenchPlan, Cell
from aizheimer.bench.rows import Row, read_row
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.edits.storage import RECORD
from aizheimer.errors import AizheimerError
from aizheimer.proof.findings import ATTACK, EVALUATION, SUITE


def adopt(cell: Cell, edit: Edit, *, plan: BenchPlan, runs: Path) -> str:
    """Copy what was found about an edit that another seed made, bit for bit the same.

    What acts at run time does not depend on its seed, nor does a closed form that draws no concepts to retain; and a
    bench draws every edit's pictures from the same seeds. So their figures are the same, and are not measured again.

    Args:
        cell: The job; what its run has already is kept.
        edit: Its edit.
        plan: Has the other seeds.
        runs: The folder of all runs.

    Returns:
        The key of the job it was taken from; empty if no other seed made this edit.
    """
    for twin in _others(cell, plan):
        there = runs / twin.key
        if not (there / RECORD).is_file() or not (found := list(_findings(there))):
            continue
        try:
            same = load_edit(there).digest == edit.digest
        except AizheimerError:
            continue
        if same:
            for file in found:
                own = runs / cell.key / file.name
                if not own.exists():
                    _files.write_text(own, file.read_text(encoding="utf-8"))
            return twin.key
    return ""


def measured_row(cell: Cell, edit: Edit, *, plan: BenchPlan, runs: Path) -> Row | None:
    """Return the row of another seed that made the very same edit, of which a row is all that is left.

    So it is where the rows of a bench were carried to another machine, and their runs were not.

    Args:
        cell: The job.
        edit: Its edit.
        plan: Has the other seeds.
        runs: The folder of all runs.

    Returns:
        The finished row; None if there is none, or its run is here, for `adopt` to take from.
    """
    for twin in _others(cell, plan):
        if (runs / twin.key / RECORD).is_file() or (row := read_row(twin, folder=runs.parent)) is None:
            continue
        if row["status"] == "done" and row.get("edit") == edit.digest:
            return {**row, "same_edit_as": twin.key}
    return None


def _others(cell: Cell, plan: BenchPlan) -> Iterator[Cell]:
    for seed in plan.seeds:
        if seed != cell.seed:
            yield Cell(method=cell.method, concept=cell.concept, seed=seed)


def _findings(run: Path) -> Iterator[Path]:
    for pattern in (EVALUATION, f"{SUITE}*.json", f"{ATTACK}*.json"):
        yield from sorted(run.glob(pattern))
