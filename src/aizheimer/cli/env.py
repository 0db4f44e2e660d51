"""``aizheimer env``: what this machine computes with."""

from __future__ import annotations

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json


def env(*, as_json: Json = False, debug: Debug = False) -> None:
    """Print versions, threads and device: what a bug report needs."""
    del debug
    from aizheimer.api import environment

    found = environment()
    if as_json:
        streams.print_json(found)
        return
    versions = found.pop("versions")
    streams.print_result(streams.pairs(found, indent=""))
    streams.print_result("")
    streams.print_result(streams.pairs(versions, indent=""))
