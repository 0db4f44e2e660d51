"""The part of ``aizheimer evaluate`` that asks suites: run them, keep their results with the run, print them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer._processes import is_main
from aizheimer.cli import streams

if TYPE_CHECKING:
    from aizheimer.evaluation.suite import SuiteResult

SuiteNames = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME|FILE", help="Ask a suite in place of UA, IRA and CRA; may be repeated."),
]

EffectiveOnly = Annotated[
    bool,
    typer.Option(
        "--effective-only", help="Leave target prompts out on which the unedited model does not show the target."
    ),
]


def evaluate_run(
    run: Path,
    suites: Sequence[str],
    *,
    model: str | None,
    device: str | None,
    seed: int,
    clip: Path | None,
    judge: str | None,
    effective_only: bool,
    as_json: bool,
) -> None:
    """Ask a run's edit the suites; writes ``suite-NAME.json`` for each into the run, as soon as it has its answer.

    Args:
        run: The run's folder.
        suites: Names or YAML files.
        model: The base, by default the one that the run names.
        device: Where to compute, see `aizheimer.api.chosen_device`.
        seed: First seed.
        clip: A CLIP folder to judge with.
        judge: See `aizheimer.evaluation.judges.named_judge`.
        effective_only: See `aizheimer.api.evaluate_suites`.
        as_json: Print one JSON object with all results.

    Raises:
        InputError: If a suite cannot be read or asked.
    """
    from aizheimer import api
    from aizheimer.cli.live import progress_bar
    from aizheimer.proof.findings import SUITE

    def keep(name: str, result: SuiteResult) -> None:
        if is_main():
            result.save(run / f"{SUITE}{name}.json")

    edit = api.load_edit(run)
    base = api.load_base(run, model, device=device)
    with progress_bar() as advance:
        results = api.evaluate_suites(
            base,
            edit,
            suites,
            effective_only=effective_only,
            seed=seed,
            clip=clip,
            judge=judge,
            keep=keep,
            progress=lambda suite, stage, done, total: advance(
                stage if stage == suite else f"{suite}: {stage}", done, total
            ),
        )
    if as_json:
        streams.print_json({name: result.model_dump(mode="json") for name, result in results.items()})
        return
    from aizheimer.reports.suite_tables import suite_tables

    for result in results.values():
        for table in suite_tables(result):
            streams.print_rich(table)
