"""Run a bench: what is done is kept, what failed is a row, what is left is run."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aizheimer import _files
from aizheimer._ray import Backend
from aizheimer.bench.backends import run_local, run_on_ray
from aizheimer.bench.cell import run_cell
from aizheimer.bench.lock import locked
from aizheimer.bench.plan import BenchPlan, Cell, differing, slug
from aizheimer.bench.rows import Row, read_row
from aizheimer.bench.table import write_table
from aizheimer.errors import InputError, RunFolderError
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.suite_file import load_suites

PLAN, ASKED = "bench.yaml", "suites.json"
"""The plan, and what its suites asked: a suite's file can be another one at the next start."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A job that has just ended.

    Args:
        cell: The job.
        row: Its row.
        done: Jobs that have a row now, those of an earlier start included.
        total: All jobs.
        seconds_left: About how long the rest will take, from what the jobs of this start took.
    """

    cell: Cell
    row: Row
    done: int
    total: int
    seconds_left: float


def run_bench(
    plan: BenchPlan,
    folder: str | Path,
    *,
    backend: Backend = "local",
    workers: int | None = None,
    retry: bool = False,
    on_step: Callable[[Step], None] | None = None,
    say: Callable[[str], None] = print,
    progress: StageProgress | None = None,
) -> list[Row]:
    """Run every job of a plan that has no row yet.

    Killed at any moment, it goes on where it was when it is started again: finished jobs have their row, and an
    interrupted one resumes its training.

    Args:
        plan: The jobs.
        folder: Where runs, rows and the table are kept.
        backend: "local", one after the other; or "ray".
        workers: Jobs at a time on Ray.
        retry: Run failed jobs again.
        on_step: Told when a job has ended.
        say: Told what happens beside jobs, in words.
        progress: Told how far a local job is.

    Returns:
        A row for every job, in the plan's order.

    Raises:
        RunFolderError: If another bench holds the folder, or one with other measurements was run in it.
        InputError: If rows were not measured alike and have no mean: before a job is run, or after all of them.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; give a folder for the bench")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, say=say):
        _describe(plan, folder)
        cells = plan.cells()
        rows = {cell.key: row for cell in cells if (row := read_row(cell, folder=folder)) is not None}
        left = [cell for cell in cells if _is_open(rows.get(cell.key), retry)]
        if len(left) < len(cells):
            say(f"{len(cells) - len(left)} of {len(cells)} jobs are done already")
        here = {"say": say, "progress": progress} if backend == "local" else {}
        work = functools.partial(_work, plan=plan, folder=folder, **here)
        if rows or not left:
            write_table(folder, _ordered(cells, rows))
        refused = ""
        started = time.perf_counter()
        for ended, (cell, row) in enumerate(_answers(left, work, backend=backend, workers=workers), start=1):
            rows[cell.key] = row
            refused = _tabled(folder, _ordered(cells, rows), refused=refused, say=say)
            if on_step is not None:
                remaining = (time.perf_counter() - started) / ended * (len(left) - ended)
                done = len(cells) - len(left) + ended
                on_step(Step(cell=cell, row=row, done=done, total=len(cells), seconds_left=remaining))
    if refused:
        raise InputError(refused)
    return _ordered(cells, rows)


def _tabled(folder: Path, rows: Sequence[Row], *, refused: str, say: Callable[[str], None]) -> str:
    """Write the table; say once, and return, why its rows have no mean: the jobs that are left run all the same."""
    try:
        write_table(folder, rows)
    except InputError as error:
        if str(error) != refused:
            say(f"no leaderboard: {error}; the other jobs go on")
        return str(error)
    return ""


def _work(cell: Cell, *, plan: BenchPlan, folder: Path, **told: Any) -> Row:
    return run_cell(cell, plan=plan, folder=folder, **told)


def _answers(
    cells: Sequence[Cell], work: Callable[[Cell], Row], *, backend: Backend, workers: int | None
) -> Iterator[tuple[Cell, Row]]:
    if backend == "local":
        yield from run_local(cells, work)
        return
    for cell, answer in run_on_ray(cells, work, workers=workers):
        yield cell, _lost(cell, answer) if isinstance(answer, Exception) else answer


def _lost(cell: Cell, error: Exception) -> Row:
    """Return the row of a job whose worker died; it is not kept, so that the next start runs it again."""
    text = " ".join(str(error).split())[:400]
    named = {"method": cell.method.name, "concept": cell.concept, "seed": cell.seed}
    return {**named, "status": "failed", "error": f"{type(error).__name__}: {text}"}


def _is_open(row: Row | None, retry: bool) -> bool:
    return row is None or (retry and row["status"] == "failed")


def _ordered(cells: Sequence[Cell], rows: dict[str, Row]) -> list[Row]:
    return [rows[cell.key] for cell in cells if cell.key in rows]


def _describe(plan: BenchPlan, folder: Path) -> None:
    """Write the plan; a folder whose rows were measured otherwise is refused."""
    file = folder / PLAN
    content = plan.model_dump(mode="json")
    if file.is_file():
        before: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        changed = differing(before if isinstance(before, dict) else {}, content)
        if changed:
            raise RunFolderError(
                f"{folder} holds a bench that was measured otherwise ({', '.join(changed)}); "
                "rows of both must not stand in one table: give another folder"
            )
        _check_entries(before, content, folder)
    _describe_suites(plan, folder)
    _files.write_yaml(file, content)


def _describe_suites(plan: BenchPlan, folder: Path) -> None:
    """Write what the suites ask; one of the same name that asks something else now is refused."""
    file = folder / ASKED
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    asked = {suite.label: suite.described() for suite in load_suites(plan.suites)}
    if changed := [label for label, now in asked.items() if before.get(label, now) != now]:
        raise RunFolderError(
            f"{folder} holds rows of the suite {', '.join(changed)} with other parameters, settings or files; "
            "give the suite's file another name, or give another folder"
        )
    if asked:
        _files.write_json(file, before | asked)


def _check_entries(before: dict[str, Any], after: dict[str, Any], folder: Path) -> None:
    """Refuse a method or an attack of the same name that means something else now."""
    meant = {
        "methods": "{} with another recipe or other parameters; give it another name",
        "attacks": "the attack {} with other parameters; give it another label, or another folder",
    }
    for what, words in meant.items():
        old, new = _by_name(before.get(what, [])), _by_name(after[what])
        if changed := [name for name, entry in new.items() if old.get(name, entry) != entry]:
            raise RunFolderError(f"{folder} holds rows of {words.format(', '.join(changed))}")


def _by_name(entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what entries mean by the slug of their name or label: other spellings share a folder or a column.

    Plans of before attacks had labels call them by their names.
    """
    return {
        slug(entry.get("label") or entry["name"]): {**entry, "name": slug(entry["name"]), "label": ""}
        for entry in entries
    }
