"""``aizheimer studio``: the whole job in a web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug


def studio(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            show_default="emoji",
            help="A model to offer: 'emoji', a pipeline folder, or a hub id; may be repeated.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to bind; any but loopback demands --auth.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to bind; 0 takes a free one.")] = 7860,
    auth: Annotated[
        str | None,
        typer.Option(
            "--auth",
            metavar="USER:PASSWORD",
            envvar="AIZHEIMER_STUDIO_AUTH",
            show_envvar=True,
            help="What everybody must know to come in.",
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where visitors' edits and pictures are kept.")
    ] = Path("studio"),
    debug: Debug = False,
) -> None:
    """Serve a page in which a concept is forgotten, compared, measured, combined and exported.

    Only this machine can reach it unless --host says otherwise. Jobs run one at a time; each browser sees its own edits
    and nobody else's. Needs: pip install 'aizheimer[studio]'
    """
    del debug
    from aizheimer.studio.serve import serve

    def say(address: str) -> None:
        streams.print_result(f"studio     {address}")
        streams.say("Stop it with Ctrl-C.")

    serve(model or ["emoji"], root=folder, host=host, port=port, auth=auth, say=say)
