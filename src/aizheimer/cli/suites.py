"""The part of ``aizheimer evaluate`` that asks suites: run them, keep their results with the run, print them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from aizheimer._processes import is_main
from aizheimer.cli import streams

SuiteNames = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME|FILE", help="Ask a suite in place of UA, IRA and CRA; may be repeated."),
]

EffectiveOnly = Annotated[
    bool, typer.Option("--effective-only", help="In suites, leave prompts out that fail on the unedited model, too.")
]


def evaluate_run(
    run: Path,
    suites: Sequence[str],
    *,
    model: str | None,
    device: str | None,
    seed: int,
    clip: Path | None,
    effective_only: bool,
    as_json: bool,
) -> None:
    """Ask a run's edit the suites; writes ``suite-NAME.json`` for each into the run.

    Args:
        run: The run's folder.
        suites: Names or YAML files.
        model: The base, by default the one that the run names.
        device: Where to compute, see `aizheimer.api.chosen_device`.
        seed: First seed.
        clip: A CLIP folder to judge with.
        effective_only: See `aizheimer.api.evaluate_suites`.
        as_json: Print one JSON object with all results.

    Raises:
        InputError: If a suite cannot be read or asked.
    """
    from aizheimer import api
    from aizheimer.cli.live import progress_bar
    from aizheimer.proof.findings import SUITE

    edit = api.load_edit(run)
    base = api.load_model(model if model is not None else api.model_of_run(run), device=device)
    with progress_bar() as advance:
        results = api.evaluate_suites(
            base,
            edit,
            suites,
            effective_only=effective_only,
            seed=seed,
            clip=clip,
            progress=lambda suite, stage, done, total: advance(
                stage if stage == suite else f"{suite}: {stage}", done, total
            ),
        )
    for name, result in results.items() if is_main() else ():
        result.save(run / f"{SUITE}{name}.json")
    if as_json:
        streams.print_json({name: result.model_dump(mode="json") for name, result in results.items()})
        return
    from aizheimer.reports.suite_tables import suite_tables

    for result in results.values():
        for table in suite_tables(result):
            streams.print_rich(table)
