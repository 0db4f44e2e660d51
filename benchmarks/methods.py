"""All methods on the same targets, prompts, seeds and judges: the comparison.

Two stages. First every method forgets every target, one process for each method, timed and its memory watched; the
edits go to a folder. Then one process judges all edits: UA by name and by synonyms only, IRA, CRA, the ten nearest.
Both resume: what the output holds already is kept, so that it may take several sittings and machines; what a second was
worth on each is beside the seconds (`reference_seconds`: one UNet pass over sixteen latents). A method that cannot do a
target is a cell that says why.

`methods_table.py` makes the table and the picture of the result.

Example:
    python benchmarks/methods.py --methods aizheimer "esd group=esd-u" --targets cat ghost
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from measuring import SETTINGS, Bench, PeakMemory, accuracies, reference_seconds, write_json
from safetensors.torch import load_file, save_file

import aizheimer
from aizheimer._registry import METHODS
from aizheimer.api import load_model
from aizheimer.backbones.counting import counted
from aizheimer.edits.io import load_edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import AizheimerError
from aizheimer.recipes.load import load_recipe

TARGETS = ("cat", "jack-o-lantern", "rocket", "pizza", "Santa Claus", "old woman", "twemoji", "fluent")
"""Four objects or animals, two people, two styles; the unedited model draws each so that the judge names it."""
EXTRA_ROWS = (
    "aizheimer-paper",
    "aizheimer-notebook",
    "esd group=esd-u",
    "forget-me-not weights=unet",
    "mace lora=false",
)
"""The paper's own system, whole UNets against cross-attention only (its section II), MACE's first stage alone."""
RESULTS = Path("benchmarks/results/methods.json")


def folder_of(edits: Path, method: str, target: str) -> Path:
    """Return where one edit lies."""
    return edits / method.replace(" ", "+") / target.replace(" ", "-")


def forget_one(method: str, target: str, folder: Path, *, callbacks: Callbacks | None = None) -> dict[str, Any]:
    """Forget one target by one method, save the edit, and say what it cost; nothing is found in a cache.

    Args:
        method: Its name, with overrides if any.
        target: What is forgotten.
        folder: Where the edit goes.
        callbacks: Told of the run, and asked whether to stop it.
    """
    backbone = load_model("emoji")
    reference = reference_seconds(backbone)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["AIZHEIMER_CACHE"] = cache
        memory, started, busy = PeakMemory(), time.perf_counter(), time.process_time()
        try:
            name, *overrides = method.split()
            with counted(backbone) as count:
                edit = aizheimer.forget(backbone, target, method=load_recipe(name, overrides), callbacks=callbacks)
        except AizheimerError as error:
            return {"error": str(error)}
        seconds, busy, peak = time.perf_counter() - started, time.process_time() - busy, memory.megabytes()
    edit.save(folder)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "reference_seconds": round(reference, 4),
        "threads": torch.get_num_threads(),
        "unet_evaluations": count.latents,
        "peak_megabytes": round(peak, 1),
        "artifact_megabytes": round(edit.size_bytes / 1e6, 3),
    }


def forget_and_judge(
    method: str, target: str, *, bench: Bench, callbacks: Callbacks | None = None
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Forget one target by one method and judge it; the edit is not kept.

    Returns:
        What it cost and how it was judged, or the error; and what the run noted of itself, nothing with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        row = forget_one(method, target, Path(folder), callbacks=callbacks)
        if "error" in row:
            return row, {}
        edit = load_edit(folder)
        return row | accuracies(bench.judged(edit, target)), edit.provenance.extra


def forget_all(method: str, targets: list[str], edits: Path) -> None:
    """Forget the targets that have not been, and note the cost of each beside its edit."""
    for target in targets:
        folder = folder_of(edits, method, target)
        if (folder / "cost.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        cost = forget_one(method, target, folder)
        write_json(folder / "cost.json", cost)
        print(f"{method} on {target}: {cost.get('error') or cost}", flush=True)


def run_forgetting(methods: list[str], targets: list[str], edits: Path) -> None:
    """Forget everything, each method in a process of its own; one that fails is told and passed over."""
    for method in methods:
        missing = [t for t in targets if not (folder_of(edits, method, t) / "cost.json").exists()]
        if missing:
            command = [sys.executable, __file__, "--edits", str(edits), "--forget", method, "--targets", *missing]
            if subprocess.run(command, check=False).returncode:
                print(f"{method} failed", file=sys.stderr, flush=True)


def run_judging(methods: list[str], targets: list[str], edits: Path, output: Path, *, precision: str) -> None:
    """Judge every edit that the output does not hold, and keep each at once.

    Raises:
        SystemExit: If the output's cells were drawn in another precision: one table has one protocol.
    """
    settings = SETTINGS.model_copy(update={"precision": precision})
    held = json.loads(output.read_text()) if output.exists() else {"cells": []}
    if any(cell.get("precision", precision) != precision for cell in held["cells"]):
        raise SystemExit(f"{output}: its pictures were not drawn in {precision}; name another --output")
    cells = held["cells"]
    features_file = output.with_suffix(".safetensors")
    features = load_file(features_file) if features_file.exists() else {}
    done = {(c["method"], c["target"]) for c in cells}
    bench = Bench(settings=settings)
    for method in methods:
        for target in targets:
            folder = folder_of(edits, method, target)
            if (method, target) in done or not (folder / "cost.json").exists():
                continue
            row: dict[str, Any] = {"method": method, "target": target}
            row |= json.loads((folder / "cost.json").read_text())
            if "error" not in row:
                figures, seen = bench.figures(load_edit(folder), target)
                row |= figures
                features[f"{method}/{target}"] = seen[1].to(torch.float16)
                features[f"unedited/{target}"] = seen[0].to(torch.float16)
                save_file(features, features_file)
            cells.append(row)
            write_json(output, {**held, "settings": settings.model_dump(mode="json"), "cells": cells})
            shown = {k: round(row[k]["value"], 3) for k in ("ua", "synonyms", "ira", "near", "cra") if row.get(k)}
            print(f"{method} on {target}: {shown or row.get('error')}", flush=True)


def main() -> None:
    """Forget, then judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--edits", type=Path, default=Path("build/method-edits"), help="where edits go")
    rows = [*METHODS, *EXTRA_ROWS]
    parser.add_argument("--methods", nargs="*", default=rows, help='names, with overrides if any: "esd group=esd-u"')
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--forget", metavar="METHOD", help="only forget, by this method, in this process")
    parser.add_argument("--no-judging", action="store_true", help="only forget")
    parser.add_argument("--no-forgetting", action="store_true", help="only judge what has been forgotten")
    parser.add_argument(
        "--precision", choices=("model", "bfloat16"), default="model", help="what pictures are drawn in"
    )
    args = parser.parse_args()
    if args.forget:
        forget_all(args.forget, args.targets, args.edits)
        return
    if not args.no_forgetting:
        run_forgetting(args.methods, args.targets, args.edits)
    if not args.no_judging:
        run_judging(args.methods, args.targets, args.edits, args.output, precision=args.precision)


if __name__ == "__main__":
    main()
