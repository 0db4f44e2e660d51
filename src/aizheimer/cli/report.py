"""``aizheimer report``: a run on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Base, Debug, Device, Json, Run


def report(
    run: Run,
    *,
    model: Base = None,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", show_default="RUN/report.html", help="Where to write it.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(
            "--gate", metavar="FILE|NAME", help="The gate whose verdict is shown; by default the certificate's, if any."
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Also write a Hugging Face model card, README.md, into the run.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run's pictures, figures, curves, heat-maps and provenance as one HTML file that works offline.

    Suites, attacks and the certificate are in it when their files are in the run, and a gate's verdict.
    """
    del debug
    from aizheimer import api
    from aizheimer.api.hub import hub_base
    from aizheimer.cli.live import progress_bar
    from aizheimer.engine.run_folder import RunFolder
    from aizheimer.evaluation.results import EvaluationResult
    from aizheimer.proof.findings import read_findings, refuse_other_edits
    from aizheimer.reports.assemble import assemble
    from aizheimer.reports.html import write_report
    from aizheimer.reports.model_card import write_model_card
    from aizheimer.reports.release import release_of

    edit = api.load_edit(run)
    result = EvaluationResult.load(run / "evaluation.json")
    found = read_findings(run)
    refuse_other_edits(found)
    file = out if out is not None else run / "report.html"
    release = release_of(found, gate=gate, report=file)
    backbone = api.load_base(run, model, device=device)
    with progress_bar() as advance:
        content = assemble(
            backbone,
            edit,
            result,
            history=RunFolder(run).history(),
            environment=_environment(run),
            suites=found.suites,
            attacks=found.attacks,
            release=release,
            progress=advance,
        )
    written = {"report": write_report(file, content)}
    if card:
        written["card"] = write_model_card(run / "README.md", found, verdict=release.verdict, base=hub_base(run))
    _tell(written, run=run, as_json=as_json)


def _tell(written: dict[str, Path], *, run: Path, as_json: bool) -> None:
    """Say where the files are."""
    if as_json:
        streams.print_json({**{name: str(path) for name, path in written.items()}, "run": str(run)})
        return
    for name, path in written.items():
        streams.print_result(f"{name:<10} {path}")


def _environment(run: Path) -> dict[str, Any] | None:
    """Return what the run was computed with, without the place of the model: a report is made to be passed on."""
    try:
        found = json.loads((run / "env.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: value for name, value in found.items() if name != "model"} if isinstance(found, dict) else None
