"""``aizheimer compare``: which of several edits is better, and whether that can be told at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json
from aizheimer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from aizheimer.proof.comparison import Comparison
    from aizheimer.proof.findings import Findings


class To(StrEnum):
    """What differences are to."""

    FIRST = "first"
    BEST = "best"


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of one target, evaluated alike.")],
    *,
    to: Annotated[
        To, typer.Option("--to", help="What differences are to: the first run, or the best at each figure.")
    ] = To.FIRST,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the page, the picture and the plots go.")
    ] = Path("comparison"),
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="NAME", help="A suite or an attack to leave out.")
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Also draw the picture.")] = True,
    model: Annotated[
        str | None, typer.Option("--model", help="The base model; by default the one that the first run names.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Put edits of one target side by side: a table, a picture at the same seeds, and plots.

    A figure that cannot be told from the reference's is marked. Runs that were not measured alike (another judge,
    model, extractor, steps, guidance, seeds or precision) are refused. Writes comparison.md, comparison.json,
    comparison.png, pareto.png, damage.png and attacks.png.
    """
    del debug
    from aizheimer.proof.comparison import compare as side_by_side
    from aizheimer.proof.findings import read_findings

    if out.exists() and not out.is_dir():
        raise InputError(f"--out: '{out}' is a file; give a folder.")
    found = _without([read_findings(run) for run in runs], without or ())
    comparison = side_by_side(found, reference=to.value)
    files = _write(comparison, found, out)
    if pictures:
        files.append(_picture(comparison, found, out, model))
    if as_json:
        streams.print_json({**comparison.to_json(), "files": [str(file) for file in files]})
        return
    from aizheimer.reports.comparison import comparison_table

    streams.print_rich(comparison_table(comparison))
    for file in files:
        streams.print_result(str(file))


def _without(runs: Sequence[Findings], names: Sequence[str]) -> list[Findings]:
    known = {name for run in runs for name in (*run.suites, *run.attacks)}
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise InputError(f"--without: no run has '{name}'.{did_you_mean(name, known)} There are: {there}.")
    return [
        dataclasses.replace(
            run,
            suites={name: found for name, found in run.suites.items() if name not in names},
            attacks={name: found for name, found in run.attacks.items() if name not in names},
        )
        for run in runs
    ]


def _write(comparison: Comparison, runs: Sequence[Findings], out: Path) -> list[Path]:
    """Write all that needs no model."""
    from aizheimer._files import write_json
    from aizheimer.reports.comparison import write_comparison
    from aizheimer.reports.plots import attack_bars, damage, pareto, save_plot

    names = [row.name for row in comparison.rows[1:]]
    results = {name: run.evaluation for name, run in zip(names, runs, strict=True) if run.evaluation is not None}
    attacks = {name: run.attacks for name, run in zip(names, runs, strict=True) if run.attacks}
    files = [write_comparison(out / "comparison.md", comparison), out / "comparison.json"]
    write_json(files[1], comparison.to_json())
    for name, figure in (("pareto", pareto(results)), ("damage", damage(results)), ("attacks", attack_bars(attacks))):
        if figure is not None:
            files.append(save_plot(figure, out / f"{name}.png"))
    return files


def _picture(comparison: Comparison, runs: Sequence[Findings], out: Path, model: str | None) -> Path:
    """Get the runs' pictures back and put them into one."""
    from aizheimer import api
    from aizheimer.cli.live import progress_bar
    from aizheimer.evaluation.results import EvaluationResult
    from aizheimer.proof.comparison import UNEDITED
    from aizheimer.proof.findings import EVALUATION
    from aizheimer.reports.rows_picture import draw_rows, save_rows

    names = [row.name for row in comparison.rows[1:]]
    backbone = api.load_base(runs[0].folder, model)
    edits = {name: api.load_edit(run.folder) for name, run in zip(names, runs, strict=True)}
    result = runs[0].evaluation or EvaluationResult.load(runs[0].folder / EVALUATION)
    with progress_bar() as advance:
        rows = draw_rows(
            backbone,
            edits,
            result,
            unedited=UNEDITED,
            progress=lambda done, total: advance("pictures", done, total),
        )
    return save_rows(rows, out / "comparison.png")
