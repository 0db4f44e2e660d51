"""Surgery against ordinary forgetting: what of the rest is kept, and how many steps of training bring the concept back.

Every row forgets every target; the edits go to a folder. Each is judged as in `methods.py` (UA, IRA, the ten nearest,
CRA) and attacked by `relearn`: fine-tuned on pictures of the concept, looked at on the way. ``steps_to_recover`` is
the first look at which the concept is back in half of the unedited model's rate, null if it is not within the steps;
of two edits the one that takes more is the one that forgot more.

A row is a method's or recipe's name with overrides. By default surgery, what it cuts with, and surgery whose second
stage is one step at almost no rate: the cut alone.

Resumes: edits are kept, and what the output holds already is not measured again.

Example:
    python benchmarks/surgery.py --targets cat penguin --output benchmarks/results/surgery.json
    python benchmarks/surgery.py --page docs/methods/surgery.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from measuring import SETTINGS, Bench, write_json
from methods import folder_of
from methods_table import write_between

import aizheimer
from aizheimer import api
from aizheimer.api import load_model
from aizheimer.attacks.base import AttackSettings
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.errors import AizheimerError
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.recipes.load import load_recipe

TARGETS = ("cat", "penguin", "princess", "Santa Claus", "rocket")
ROWS = ("closed-distraction", "surgery", "surgery training.steps=1 training.lr=1e-12", "surgery cut=1", "surgery cut=8")
EDITS = Path("build/surgery-edits")
LATE = 40
"""Steps of relearning from which on the table shows looks."""


def forgotten(row: str, target: str, edits: Path) -> tuple[Edit, float]:
    """Forget one target, or find that done; returns the edit and the seconds that it took."""
    place = folder_of(edits, row, target)
    cost = place / "cost.json"
    if not cost.exists():
        name, *overrides = row.split()
        started = time.perf_counter()
        backbone = load_model("emoji")
        aizheimer.forget(backbone, target, method=load_recipe(name, overrides), out=place, overwrite=place.exists())
        write_json(cost, {"seconds": round(time.perf_counter() - started, 1)})
    return load_edit(place), json.loads(cost.read_text())["seconds"]


def relearned(edit: Edit, *, images: int, steps: int, precision: str) -> dict[str, Any]:
    """Return what the attack found: the curve, and the steps until the concept was back."""
    settings = AttackSettings.model_validate({"images": images, "precision": precision})
    done = api.attack(load_model("emoji"), edit, attack="relearn", settings=settings, controls=False, steps=steps)
    kept = ("steps_to_recover", "unedited_rate", "curve")
    return {"steps": steps, **{name: done.result.details[name] for name in kept}}


def cell(bench: Bench, row: str, target: str, *, edits: Path, images: int, steps: int) -> dict[str, Any]:
    """Forget, judge and attack; what cannot be done says why."""
    base = {"row": row, "target": target}
    try:
        edit, seconds = forgotten(row, target, edits)
    except AizheimerError as error:
        return {**base, "error": str(error)}
    figures, _ = bench.figures(edit, target)
    attacked = relearned(edit, images=images, steps=steps, precision=bench.settings.precision)
    return {**base, "cut": edit.provenance.extra.get("cut", []), "seconds": seconds, **figures, "relearn": attacked}


def line(made: dict[str, Any]) -> str:
    """Return a cell in a line."""
    if "error" in made:
        return f"{made['row']} on {made['target']}: {made['error']}"
    shown = {name: round(made[name]["value"], 3) for name in ("ua", "ira", "near") if name in made}
    back = made["relearn"]["steps_to_recover"]
    ending = f"back after {back} steps" if back is not None else f"not back after {made['relearn']['steps']} steps"
    return f"{made['row']} on {made['target']}: {shown}, {ending}"


def table(cells: list[dict[str, Any]]) -> str:
    """Return a line for each row that has every target, the means over them, as Markdown."""
    targets = dict.fromkeys(made["target"] for made in cells)
    looks = [look["step"] for look in cells[0]["relearn"]["curve"] if look["step"] >= LATE]
    heads = ["edit", "UA", "IRA", "the nearest", "CRA", *(f"back after {step}" for step in looks)]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in dict.fromkeys(made["row"] for made in cells):
        own = [made for made in cells if made["row"] == row and "error" not in made]
        if len(own) < len(targets):
            continue
        means = [statistics.mean(made[name]["value"] for made in own) for name in ("ua", "ira", "near", "cra")]
        curves = [{look["step"]: look["rate"] for look in made["relearn"]["curve"]} for made in own]
        means += [statistics.mean(curve[step] for curve in curves) for step in looks]
        lines.append(f"| `{row}` | {' | '.join(f'{100 * mean:.0f} %' for mean in means)} |")
    return "\n".join(lines) + f"\n\nMeans over {', '.join(targets)}.\n"


def main(arguments: list[str] | None = None) -> None:
    """Do what the output does not hold, and write it after every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/surgery.json"))
    parser.add_argument("--edits", type=Path, default=EDITS, help="where edits go")
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--samples", type=int, default=85, help="pictures that judge an edit")
    parser.add_argument("--images", type=int, default=20, help="pictures of a look while it relearns")
    parser.add_argument("--steps", type=int, default=160, help="most steps of relearning")
    parser.add_argument("--precision", choices=("model", "bfloat16"), default="model", help="to draw in")
    parser.add_argument("--page", type=Path, help="write the table of the output there, and measure nothing")
    args = parser.parse_args(arguments)
    if args.page is not None:
        found = table(json.loads(args.output.read_text())["cells"])
        write_between(args.page, "surgery", found)
        return
    settings = EvaluationSettings.sized(args.samples, **SETTINGS.model_dump(include={"steps", "batch_size"}))
    bench = Bench(settings=settings.model_copy(update={"precision": args.precision}))
    cells = json.loads(args.output.read_text())["cells"] if args.output.exists() else []
    for target in args.targets:
        for row in args.rows:
            if any((made["row"], made["target"]) == (row, target) for made in cells):
                continue
            cells.append(cell(bench, row, target, edits=args.edits, images=args.images, steps=args.steps))
            write_json(args.output, {"settings": bench.settings.model_dump(mode="json"), "cells": cells})
            print(line(cells[-1]), flush=True)


if __name__ == "__main__":
    main()
