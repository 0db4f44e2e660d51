"""``aizheimer shrink``: the smallest part of an edit that still meets a demand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Base, Clip, Debug, Json, Overwrite, Run
from aizheimer.cli.tune import Require, Samples

if TYPE_CHECKING:
    from aizheimer.tuning.record import Cut
    from aizheimer.tuning.shrink import Shrunk


def shrink(
    run: Run,
    *,
    require: Require,
    model: Base = None,
    samples: Samples = None,
    clip: Clip = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", show_default="RUN-small")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first of the pictures.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search for the smallest part of an edit that still meets a demand, and save it as a run.

    The rank of every layer's change is lowered first, then layers are left out, those first that do the least. The
    result is measured again on pictures that the search has not seen. Writes shrink.json beside the edit. Exit code 3:
    the edit itself misses the demand, or all parts do on fresh pictures.
    """
    del debug
    from aizheimer.cli.live import progress_bar
    from aizheimer.tuning.shrink import shrink as find

    folder = out if out is not None else run.resolve().with_name(f"{run.resolve().name}-small")
    with progress_bar() as advance:
        found = find(
            run,
            require=require,
            out=folder,
            model=model,
            samples=samples,
            seed=seed,
            overwrite=overwrite,
            clip=clip,
            on_trial=_tell,
            progress=advance if streams.progress_console().is_terminal else None,
        )
    _print(found, as_json=as_json)


def _tell(cut: Cut) -> None:
    """Say how a part did."""
    figures = ", ".join(f"{name.upper()} {cut.values[name]:.2f}" for name in ("ua", "ira", "cra") if name in cut.values)
    ending = "meets the demand" if cut.met else "misses it"
    rank = "whole" if cut.rank is None else f"rank {cut.rank}"
    streams.say(f"{rank}, {len(cut.dropped)} layers left out: {figures} - {ending} ({cut.seconds:.0f} s)")


def _print(found: Shrunk, *, as_json: bool) -> None:
    from aizheimer.tuning.shrink import SHRINK_RECORD

    record, cut = found.record, found.record.chosen
    if as_json:
        files = {"run": str(found.folder), "record": str(found.folder / SHRINK_RECORD)}
        streams.print_json({**record.model_dump(mode="json"), "chosen": cut.model_dump(mode="json"), **files})
        return
    rank = "whole matrices" if cut.rank is None else f"rank {cut.rank}"
    lines = {
        "kept": f"{record.layers - len(cut.dropped)} of {record.layers} layers, {rank}",
        "numbers": f"{cut.numbers:,} of {record.numbers:,} ({cut.numbers / record.numbers:.1%})",
        "before": _figures(record.before),
        "after": f"{_figures(cut.values)} on fresh pictures ({found.result.settings.target_images} of the target)",
        "edit": str(found.folder / "edit.safetensors"),
    }
    if cut.rank is not None:
        lines["as a LoRA"] = f"aizheimer export {found.folder} --format lora-kohya --rank {cut.rank}"
    streams.print_result(streams.pairs(lines, indent=""))


def _figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name.upper()} {values[name]:.3f}" for name in ("ua", "ira", "cra") if name in values)
