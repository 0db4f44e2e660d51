"""``aizheimer verify``: does a run still hold what it states."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Base, Debug, Device, Json, JudgeName, Run
from aizheimer.errors import GateError

if TYPE_CHECKING:
    from aizheimer.proof.certificate import Certificate


def verify(
    run: Run,
    *,
    model: Base = None,
    device: Device = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="About how many pictures to draw again.")] = 12,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="Share of the sample in which an answer may differ.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice of the sample.")] = 0,
    clip: Annotated[
        Path | None, typer.Option("--clip", metavar="DIR", help="The CLIP folder that judged, if one was given.")
    ] = None,
    judge: JudgeName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check the hashes of edit and base, count the figures again, and draw a sample again without the cache.

    Exits with 0 if all agrees, else with 3 and what does not. A certificate in the run is checked too.
    """
    del debug
    from aizheimer import api
    from aizheimer.cli.live import progress_bar
    from aizheimer.evaluation.judges import judges_for
    from aizheimer.proof.findings import read_findings
    from aizheimer.proof.verify import verifiable
    from aizheimer.proof.verify import verify as hold

    found = read_findings(run)
    origin, _ = verifiable(found)
    backbone = api.load_base(run, model, device=device)
    judges = judges_for(origin.concept.to_concept(), world=backbone.world, clip=clip, judge=judge)
    with progress_bar() as advance:
        verification = hold(
            found,
            backbone=backbone,
            judges=judges,
            certificate=_certificate(run),
            samples=samples,
            tolerance=tolerance,
            seed=seed,
            progress=lambda done, total: advance("drawing", done, total),
        )
    if as_json:
        streams.print_json({"run": str(run), "passed": verification.passed, **dataclasses.asdict(verification)})
    else:
        for line in verification.lines:
            mark = "agrees " if line.passed else "DIFFERS"
            streams.print_result(f"{mark}  {line.name}: stated {line.stated}, found {line.found}")
        streams.print_result(f"sample   {verification.sample}")
    if not verification.passed:
        raise GateError(f"{run}: {verification.summary}.")


def _certificate(run: Path) -> Certificate | None:
    from aizheimer.proof.certificate import FILE_NAME, Certificate

    return Certificate.load(run / FILE_NAME) if (run / FILE_NAME).is_file() else None
