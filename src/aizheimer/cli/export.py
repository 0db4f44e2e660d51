"""``aizheimer export``: an edit as a file of ComfyUI, AUTOMATIC1111 or diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Base, Debug, Json, Run

if TYPE_CHECKING:
    from aizheimer.edits.export import Exported


def export(
    run: Run,
    *,
    format: Annotated[
        str,
        typer.Option(
            "--format", help="delta, lora-peft, lora-kohya, diffusers, single-file or text-encoder.", show_default=False
        ),
    ],
    rank: Annotated[int, typer.Option("--rank", help="Rank of a LoRA, at most.")] = 32,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out what a LoRA cannot hold (biases, norms), and say how much.")
    ] = False,
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Let a gated edit (SPM) act on all prompts alike.")
    ] = False,
    model: Base = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", show_default="exports/RUN-FORMAT", help="The file or folder to write."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write an edit as something that needs nothing of aizheimer to draw with.

    delta: the changed tensors. lora-peft, lora-kohya: a LoRA, exact if the edit has no more than --rank dimensions,
    else with its error printed. diffusers: the whole pipeline. single-file: one checkpoint in the original layout.
    text-encoder: the edited text encoder. What a format cannot hold is refused.
    """
    del debug
    from aizheimer import api

    exported = api.export(run, format=format, model=model, out=out, rank=rank, partial=partial, ungated=ungated)
    if as_json:
        layers = {name: {"rank": rank, "error": error} for name, (rank, error) in (exported.layers or {}).items()}
        streams.print_json(
            {
                "format": exported.format,
                "path": str(exported.path),
                "bytes": exported.size_bytes,
                "load": exported.load,
                "error": exported.error,
                "layers": layers,
                "left_out": list(exported.left_out),
            }
        )
        return
    _print_layers(exported)
    streams.print_result(f"{'wrote':<10} {exported.path} ({exported.size_bytes / 1e6:.2f} MB)")
    streams.print_result(f"{'error':<10} {_error(exported.error)}{_left_out(exported)}")
    streams.print_result(f"{'load':<10} {exported.load}")


def _print_layers(exported: Exported) -> None:
    if exported.layers:
        rows = [[name, f"rank {rank}", _error(error)] for name, (rank, error) in exported.layers.items()]
        streams.print_result("relative error of each layer's change")
        streams.print_result(streams.columns(rows))


def _error(error: float) -> str:
    from aizheimer.edits.low_rank import EXACT

    return "none" if error == 0 else f"{error:.1e} (exact to rounding)" if error <= EXACT else f"{error:.2%}"


def _left_out(exported: Exported) -> str:
    return f", with {len(exported.left_out)} changes left out" if exported.left_out else ""
