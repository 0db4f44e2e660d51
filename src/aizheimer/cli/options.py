"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines; errors are JSON too.")]

Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
"""Read by the error boundary from the command line itself, so that it also works when parsing fails."""

Model = Annotated[
    str, typer.Option("--model", help="'emoji' (ships with the package), a pipeline folder, or a hub id.")
]

Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="cpu|cuda[:N]|mps",
        help="Where to compute; a GPU if there is one. AIZHEIMER_DEVICE says it for all commands.",
        show_default=False,
    ),
]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as written by 'aizheimer forget'.")]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE...", help="Parameters of the method, such as training.steps=100."),
]

JudgeName = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="DIR|faces:DIR|nudenet",
        help="Who names the target's kind, in place of the model's own judge: an image classifier or a CLIP of "
        "transformers, on faces alone with 'faces:' (needs NudeNet), or NudeNet for nudity.",
    ),
]
