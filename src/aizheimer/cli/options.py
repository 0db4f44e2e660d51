"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines; errors are JSON too.")]

Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
"""Read by the error boundary from the command line itself, so that it also works when parsing fails."""

Model = Annotated[
    str,
    typer.Option(
        "--model", help="'emoji' (ships with the package), a pipeline folder, a .safetensors checkpoint, or a hub id."
    ),
]

Base = Annotated[str | None, typer.Option("--model", help="The base model; by default the one that the run names.")]

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

Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", show_default="runs/CONCEPT", help="The run folder.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]

Target = Annotated[str, typer.Argument(metavar="CONCEPT", help="What to forget, as it is written in a prompt.")]

Keep = Annotated[list[str] | None, typer.Option("--keep", help="A concept that must stay; may be repeated.")]

Anchor = Annotated[str, typer.Option("--anchor", help="What takes the concept's place.")]

MethodName = Annotated[str, typer.Option("--method", "--recipe", help="A method's or recipe's name, or a recipe file.")]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE...", help="Parameters of the method, such as training.steps=100."),
]

Guidance = Annotated[
    float | None, typer.Option("--guidance", min=0, help="Guidance scale; the model's own by default.")
]

Clip = Annotated[
    Path | None, typer.Option("--clip", metavar="DIR", help="A CLIP folder to judge with, for a model without judges.")
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
