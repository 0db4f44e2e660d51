"""``aizheimer bench``: methods x concepts x seeds, measured alike."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json
from aizheimer.errors import InputError

if TYPE_CHECKING:
    from aizheimer.bench.rows import Row
    from aizheimer.bench.run import Step


class Where(StrEnum):
    """Where jobs are run."""

    LOCAL = "local"
    RAY = "ray"


Many = list[str] | None


def bench(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN]", help="A YAML file; options replace what it says.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where runs and results go.")] = Path("bench"),
    methods: Annotated[Many, typer.Option("--method", help="A method or recipe; again for more.")] = None,
    concepts: Annotated[Many, typer.Option("--concept", help="A target; again for more.")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", min=0, help="A training seed; again for more.")] = None,
    suites: Annotated[
        Many, typer.Option("--suite", help="A suite or its YAML file, for each edit; again for more.")
    ] = None,
    attacks: Annotated[Many, typer.Option("--attack", help="An attack on each edit; again for more.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="'emoji', a pipeline folder, or a hub id.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=3, help="About how many pictures each evaluation draws.")
    ] = None,
    backend: Annotated[Where, typer.Option("--backend", help="Here one after the other, or on Ray.")] = Where.LOCAL,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Jobs at a time on Ray.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed jobs again.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let every method forget every concept with every seed, and measure each edit the same way.

    Interrupted, it goes on where it was when it is started again. A job that fails is a row with its error. Writes
    results.jsonl, results.parquet (with pyarrow) and leaderboard.html after every job.
    """
    del debug
    from aizheimer.bench.plan import load_plan
    from aizheimer.bench.run import run_bench
    from aizheimer.bench.table import has_parquet
    from aizheimer.cli.live import progress_bar

    if workers is not None and backend is Where.LOCAL:
        raise InputError("--workers: local jobs run one after the other; give --backend ray for several at a time.")
    given = {"methods": methods, "concepts": concepts, "seeds": seeds, "suites": suites, "attacks": attacks}
    changes: dict[str, Any] = {**given, "model": model, "samples": samples}
    jobs = load_plan(plan, {name: value for name, value in changes.items() if value is not None})
    with progress_bar() as advance:
        rows = run_bench(
            jobs,
            out,
            backend=backend.value,
            workers=workers,
            retry=retry,
            on_step=_tell,
            say=streams.say,
            progress=advance if streams.progress_console().is_terminal else None,
        )
    if not has_parquet():
        streams.say("no results.parquet: pyarrow is not installed (pip install 'aizheimer[parquet]')")
    if as_json:
        streams.print_json({"rows": rows, "folder": str(out)})
        return
    _show(rows, out)


def _show(rows: list[Row], out: Path) -> None:
    """Print the leaderboard and where its files are."""
    from aizheimer.reports.leaderboard import leaderboard_tables

    for table in leaderboard_tables(rows):
        streams.print_rich(table)
    for name in ("results.jsonl", "results.parquet", "leaderboard.html"):
        if (out / name).is_file():
            streams.print_result(str(out / name))


def _tell(step: Step) -> None:
    """Say how a job ended and about how long the rest will take."""
    row, cell = step.row, step.cell
    figures = [f"{name.upper()} {100 * row[name]:.0f}%" for name in ("ua", "ira", "cra") if row.get(name) is not None]
    outcome = ", ".join(figures) if row["status"] == "done" else f"failed: {row['error']}"
    left = f", about {duration(step.seconds_left)} left" if step.done < step.total else ""
    took = f"{row.get('seconds', 0):.0f} s"
    name = f"{cell.method.name}, {cell.concept}, seed {cell.seed}"
    streams.say(f"{step.done}/{step.total}  {name}: {outcome or 'no figure could be measured'} ({took}{left})")


def duration(seconds: float) -> str:
    """Return a time in the unit one would say it in.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
