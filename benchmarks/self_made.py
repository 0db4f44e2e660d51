"""Self-made data: do the model's own pictures suffice, how many of them, and what do real ones add?

Methods that train on pictures get them from three places: N that the model draws (``generate:N``), or the real
drawings that it learned from. Which pictures a method takes differs: of the target, of the anchor, or of everything
else; see `PICTURES`. There are as many real drawings of a thing as there are styles, so ``generate:5`` is the like-
for-like column. The real drawings are an imagefolder as `models/emoji/build_dataset.py --imagefolder` writes it;
without one the real column is left out and said so.

Measured are UA and IRA beside the unedited model's, the ten nearest and CRA, as in `methods.py`, and the seconds.

Resumes: edits are kept in a folder, and what the output holds already is not measured again.

Example:
    python models/emoji/build_dataset.py --imagefolder models/emoji/build/drawings
    python benchmarks/self_made.py --imagefolder models/emoji/build/drawings
    python benchmarks/self_made.py --methods --page docs/self-made.md
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from measuring import SETTINGS, Bench, write_json
from methods import folder_of
from methods_table import write_between

import aizheimer
from aizheimer.api import load_model
from aizheimer.concepts.concept import Concept
from aizheimer.data.captioned import METADATA
from aizheimer.edits.io import load_edit
from aizheimer.errors import AizheimerError
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.recipes.load import load_recipe

PICTURES = {
    "aizheimer-paper": "target",
    "forget-me-not": "target",
    "salun": "target",
    "sepme": "target",
    "concept-ablation": "anchor",
    "doco": "anchor",
    "data-censoring": "everything",
}
"""Methods that take pictures, and whose: the concept's, the anchor's, or those of everything but the concept."""
PAIRS = {"cat": "dog", "penguin": "owl", "princess": "woman", "rocket": "airplane", "pizza": "hamburger"}
"""Targets with anchors that the model draws."""
COUNTS = (1, 5, 20, 80)
REAL = "real"


def drawings_of(label: str, imagefolder: Path, folder: Path) -> Path:
    """Return a folder of the real drawings of one thing.

    Raises:
        SystemExit: If the imagefolder has none, or is no such folder.
    """
    place = folder / label.replace(" ", "-")
    file = imagefolder / METADATA
    if not file.is_file():
        raise SystemExit(
            f"{imagefolder} holds no {METADATA}; write it with models/emoji/build_dataset.py --imagefolder"
        )
    records = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    own = [record["file_name"] for record in records if record.get("label") == label]
    if not own:
        raise SystemExit(f"{file} has no drawing of '{label}'; choose a target and an anchor that it has")
    place.mkdir(parents=True, exist_ok=True)
    for name in own:
        shutil.copy(imagefolder / name, place / name.replace("/", "-"))
    return place


def place_of(method: str, images: str, target: str, *, imagefolder: Path | None, drawings: Path) -> str | None:
    """Return what a method is given as its ``images``; None if there are no real ones to give."""
    if images != REAL:
        return images
    if imagefolder is None:
        return None
    whose = PICTURES[method]
    if whose == "everything":
        return str(imagefolder)
    return str(drawings_of(target if whose == "target" else PAIRS[target], imagefolder, drawings))


def cell(bench: Bench, key: tuple[str, str, str], place: str, *, edits: Path, overrides: list[str]) -> dict[str, Any]:
    """Forget and judge; what cannot be done says why.

    Args:
        bench: The model and its judges.
        key: Method, target, and where the pictures come from.
        place: The method's ``images``.
        edits: Where edits go.
        overrides: Further parameters of the methods.
    """
    method, target, images = key
    base: dict[str, Any] = {"method": method, "target": target, "images": images, "pictures_of": PICTURES[method]}
    folder = folder_of(edits, f"{method} {images}", target)
    cost = folder / "cost.json"
    anchor = PAIRS[target] if PICTURES[method] == "anchor" else ""
    try:
        if not cost.exists():
            recipe, started = load_recipe(method, [f"images={place}", *overrides]), time.perf_counter()
            concept = Concept(target, anchor=anchor)
            aizheimer.forget(load_model("emoji"), concept, method=recipe, out=folder, overwrite=folder.exists())
            write_json(cost, {"seconds": round(time.perf_counter() - started, 1)})
        edit = load_edit(folder)
    except AizheimerError as error:
        return {**base, "error": str(error)}
    figures, _ = bench.figures(edit, target)
    return {**base, "anchor": anchor, **json.loads(cost.read_text()), **figures}


def line(made: dict[str, Any]) -> str:
    """Return a cell in a line."""
    told = f"{made['method']} on {made['target']} from {made['images']}"
    shown = {name: round(made[name]["value"], 3) for name in ("ua", "ira", "near") if name in made}
    return f"{told}: {made.get('error') or shown}"


def table(cells: list[dict[str, Any]]) -> str:
    """Return means over targets, a row for each method and place of its pictures, as Markdown."""
    lines = [
        "| method | pictures of | from | targets | UA | IRA kept | nearest kept | CRA kept | seconds |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for method, images in dict.fromkeys((made["method"], made["images"]) for made in cells):
        own = [made for made in cells if (made["method"], made["images"]) == (method, images) and "ua" in made]
        if not own:
            continue
        kept = [fmean(made[name]["value"] / made[name]["original"] for made in own) for name in ("ira", "near", "cra")]
        rates = [fmean(made["ua"]["value"] for made in own), *kept]
        place = "real drawings" if images == REAL else f"the model, {images.removeprefix('generate:')}"
        shown = " | ".join(f"{100 * rate:.0f} %" for rate in rates)
        seconds = fmean(made["seconds"] for made in own)
        lines.append(f"| {method} | {PICTURES[method]} | {place} | {len(own)} | {shown} | {seconds:.0f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Do what the output does not hold, and write it after every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/self_made.json"))
    parser.add_argument("--edits", type=Path, default=Path("build/self-made-edits"), help="where edits go")
    parser.add_argument("--imagefolder", type=Path, help="the real drawings")
    parser.add_argument("--methods", nargs="*", default=list(PICTURES), choices=list(PICTURES))
    parser.add_argument("--targets", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--counts", nargs="*", type=int, default=list(COUNTS), help="numbers of self-made pictures")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="parameters of all methods")
    parser.add_argument("--page", type=Path, help="write the table between its marks 'self-made' in this page")
    parser.add_argument("--samples", type=int, default=85, help="pictures that judge an edit")
    parser.add_argument("--precision", choices=("model", "bfloat16"), default="model", help="to draw in")
    args = parser.parse_args(arguments)
    settings = EvaluationSettings.sized(args.samples, **SETTINGS.model_dump(include={"steps", "batch_size"}))
    bench = Bench(settings=settings.model_copy(update={"precision": args.precision}))
    cells = json.loads(args.output.read_text())["cells"] if args.output.exists() else []
    done = {(made["method"], made["target"], made["images"]) for made in cells}
    if args.imagefolder is None:
        print("no --imagefolder: the real drawings are left out", flush=True)
    for method in args.methods:
        for target in args.targets:
            for images in (*(f"generate:{count}" for count in args.counts), REAL):
                options = {"imagefolder": args.imagefolder, "drawings": args.edits / "drawings"}
                place = place_of(method, images, target, **options)
                if place is None or (method, target, images) in done:
                    continue
                cells.append(cell(bench, (method, target, images), place, edits=args.edits, overrides=args.set))
                write_json(args.output, {"settings": bench.settings.model_dump(mode="json"), "cells": cells})
                print(line(cells[-1]), flush=True)
    if args.page is not None and cells:
        write_between(args.page, "self-made", table(cells))


if __name__ == "__main__":
    main()
