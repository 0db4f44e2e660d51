"""``aizheimer push`` and ``aizheimer pull``: edits on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.forget import RUNS
from aizheimer.cli.options import Debug, Json, Run


def push(
    run: Run,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub.")],
    *,
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="Licence of the base, as the hub names it: openrail, mit.")
    ] = "",
    gate: Annotated[
        str | None, typer.Option("--gate", metavar="FILE|NAME", help="State on the card whether this gate holds.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a repository that only you see.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Upload an edit with a model card: what it forgets, what was measured, what was not, and its limits.

    Sent are the edit, the recipe, the figures and pictures of the run; not where on this machine the base is. Log in
    first with 'hf auth login'.
    """
    del debug
    from aizheimer import api

    url = api.push(run, repository, licence=licence, gate=gate, private=private)
    if as_json:
        streams.print_json({"run": str(run), "repository": repository, "url": url})
    else:
        streams.print_result(f"{'pushed':<10} {url}")


def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", show_default="runs/NAME", help="The run folder.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="A commit, branch or tag.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Download an edit into a run folder; only safetensors, JSON, YAML and pictures are fetched."""
    del debug
    from aizheimer import api
    from aizheimer.edits.compose import targets_of
    from aizheimer.edits.parts import doing, recorded_parts

    folder = out if out is not None else RUNS / repository.rpartition("/")[2]
    edit = api.pull(repository, folder, revision=revision)
    if as_json:
        streams.print_json(
            {"run": str(folder), "concept": edit.provenance.concept.target, "concepts": list(targets_of(edit))}
        )
    else:
        does = doing(recorded_parts(edit.provenance))
        streams.print_result(f"{'edit':<10} {folder / 'edit.safetensors'} (makes a model {does})")
