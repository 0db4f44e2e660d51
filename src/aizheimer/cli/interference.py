"""``aizheimer interference``: what several edits of one base do to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Clip, Debug, Json


def interference(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders on one base, two or more.")],
    *,
    images: Annotated[int, typer.Option("--images", min=1, help="Pictures of each target.")] = 5,
    retained: Annotated[int, typer.Option("--retained", min=1, help="Other objects that must stay.")] = 60,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first pictures.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", help="The base model; by default the one that the first run names.")
    ] = None,
    clip: Clip = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the matrix and its picture go.")] = Path(
        "interference"
    ),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what several edits do to each other: each alone, all together, and the matrix of all pairs.

    Of every target, UA under its own edit and in company; of every other target and of other objects, what each edit
    takes away. Interrupted, it finds the pictures that were drawn when it is started again. Writes interference.json
    and interference.png.
    """
    del debug
    from aizheimer import api
    from aizheimer.cli.live import progress_bar
    from aizheimer.reports.interference import interference_summary, interference_table

    with progress_bar() as advance:
        found = api.interference(
            runs,
            model=model,
            images=images,
            retained=retained,
            steps=steps,
            seed=seed,
            clip=clip,
            out=out,
            progress=advance if streams.progress_console().is_terminal else None,
        )
    if as_json:
        streams.print_json({**found.model_dump(mode="json"), "folder": str(out)})
        return
    streams.print_rich(interference_table(found))
    streams.print_result(interference_summary(found))
    for name in (api.MATRIX, api.MATRIX_PICTURE):
        streams.print_result(str(out / name))
