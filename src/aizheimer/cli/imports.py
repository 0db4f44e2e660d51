"""``aizheimer import``: what another program saved, as an edit."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.forget import RUNS, folder_name
from aizheimer.cli.options import Debug, Json, Out, Overwrite

if TYPE_CHECKING:
    from aizheimer.edits.imports import ImportReport

SHOWN = 5
"""Most unmatched names that are printed."""


class GateName(StrEnum):
    """How a LoRA acts."""

    AUTO = "auto"
    BOTH = "both"
    EMBEDDING = "embedding"
    TOKENS = "tokens"
    NONE = "none"


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of tensors, or a folder as diffusers saves it.")],
    *,
    base: Annotated[
        str, typer.Option("--base", "--model", help="The model it was made from: 'emoji', a folder, or a hub id.")
    ],
    concept: Annotated[str, typer.Option("--concept", help="What it forgets, as it is written in a prompt.")],
    method: Annotated[str, typer.Option("--method", help="What made it, for the record.")] = "imported",
    gate: Annotated[
        GateName, typer.Option("--gate", help="How a LoRA acts; auto gates an SPM by the prompt, and nothing else.")
    ] = GateName.AUTO,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read an erased model, a part of one or a LoRA as an edit that can be evaluated, attacked and stacked.

    ESD and UCE weights, Concept Ablation's and DoCo's delta.bin, SPM, LECO and other LoRAs, pipeline folders, text
    encoders, and checkpoints in the original layout. Pickles are read without running them. Says which tensors matched,
    which did not, and whether any weight really changed.
    """
    del debug
    from aizheimer import api

    folder = out if out is not None else RUNS / folder_name(concept)
    edit, report = api.import_edit(file, base, concept, method=method, gate=gate.value, out=folder, overwrite=overwrite)
    if as_json:
        hook = edit.hook.name if edit.hook is not None else None
        streams.print_json({"run": str(folder), "concept": concept, "hook": hook, **report.as_json()})
        return
    _print_report(report)
    streams.print_result(f"{'edit':<10} {folder / 'edit.safetensors'}")


def _print_report(report: ImportReport) -> None:
    name, share = report.largest
    largest = f"; most: {name}, by {share:.2%} of its norm" if name else ""
    elsewhere = f"; {report.elsewhere} of an autoencoder, an optimiser or the like were not looked at"
    streams.print_result(f"{'kind':<10} {report.kind}")
    streams.print_result(f"{'matched':<10} {report.matched} tensors{elsewhere if report.elsewhere else ''}")
    streams.print_result(f"{'unmatched':<10} {len(report.unmatched)} tensors")
    for unmatched in report.unmatched[:SHOWN]:
        streams.print_result(f"{'':<10}   {unmatched}")
    if (more := len(report.unmatched) - SHOWN) > 0:
        streams.print_result(f"{'':<10}   and {more} more")
    streams.print_result(f"{'changed':<10} {report.changed}, unchanged {report.unchanged}{largest}")
