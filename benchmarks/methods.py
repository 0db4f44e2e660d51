"""All methods on the same targets, prompts, seeds and judges: the comparison table.

A cell is one method on one target, in a process of its own: forgotten, timed, applied and judged. UA by name and by
synonyms only, IRA, CRA, the ten nearest, and what it cost. Resumes: cells already in the output are kept; a method that
cannot do a target is a cell that says why.

Example:
    python benchmarks/methods.py --methods aizheimer uce --targets cat ghost
    python benchmarks/methods.py --table docs/methods/comparison.md --picture docs/images/pareto.png
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import aizheimer
from aizheimer.api import load_model
from aizheimer.backbones.base import Backbone
from aizheimer.edits.edit import Edit
from aizheimer.errors import AizheimerError
from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.evaluation.judges import load_judges
from aizheimer.recipes.load import load_recipe

matplotlib.use("Agg")

TARGETS = ("cat", "jack-o-lantern", "rocket", "pizza", "Santa Claus", "police officer", "twemoji", "fluent")
"""Four objects or animals, two people, two styles."""
TUNING_TARGETS = ("penguin", "princess")
"""What defaults are chosen on; never in the table."""
SYNONYM_IMAGES = 20
RESULTS = Path("benchmarks/results/methods.json")


def count_evaluations(backbone: Backbone) -> list[int]:
    """Count latents through the denoiser from here on; the list's one number grows."""
    seen = [0]

    def listen(module: Any, inputs: tuple, keywords: dict[str, Any], output: Any) -> None:
        del module, output
        x_t = inputs[0] if inputs else keywords["sample"]
        seen[0] += len(x_t)

    backbone.denoiser.register_forward_hook(listen, with_kwargs=True)
    return seen


def synonym_jobs(backbone: Backbone, target: str) -> list[PromptJob]:
    """Return prompts that mean the target without naming it, or none for a style."""
    world = backbone.world
    item = next((item for item in world.vocabulary if item.label == target), None)
    words = [tag for tag in item.tags if target.casefold() not in tag.casefold()] if item else []
    if not words:
        return []
    rng = np.random.default_rng(0)
    jobs = []
    for i in range(SYNONYM_IMAGES):
        picked = rng.permutation(words)[: min(len(words), 3)]
        jobs.append(PromptJob(world.object_templates[i % 5].format(concept=" ".join(picked)), 500 + i))
    return jobs


def synonym_accuracy(backbone: Backbone, edit: Edit, target: str) -> dict[str, float] | None:
    """Return how often synonyms no longer draw the target, with the edit and without."""
    jobs = synonym_jobs(backbone, target)
    if not jobs:
        return None
    judge, guidance = load_judges(backbone.world).object, backbone.world.guidance

    def forgotten() -> float:
        labels = judge.judge(generate(backbone.pipe, jobs, guidance=guidance)).labels
        return float(np.mean([label != target for label in labels]))

    original = forgotten()
    with edit.applied(backbone.pipe):
        return {"value": forgotten(), "original": original}


def cell(method: str, target: str) -> dict[str, Any]:
    """Forget one target by one method and measure everything."""
    backbone = load_model("emoji")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row: dict[str, Any] = {"method": method, "target": target}
    evaluations, started = count_evaluations(backbone), time.perf_counter()
    try:
        edit = aizheimer.forget(backbone, target, method=load_recipe(method))
    except AizheimerError as error:
        return row | {"error": str(error)}
    row["seconds"] = round(time.perf_counter() - started, 2)
    row["unet_evaluations"] = evaluations[0]
    row["peak_megabytes"] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)
    row["artifact_megabytes"] = round(edit.size_bytes / 1e6, 3)
    result = aizheimer.evaluate(backbone, edit)
    for name in ("ua", "ira", "cra", "near"):
        if (metric := getattr(result, name)) is not None:
            row[name] = {"value": metric.value, "original": metric.original, "interval": list(metric.interval)}
    row["synonyms"] = synonym_accuracy(backbone, edit, target)
    return row | {"no_op": result.no_op, "collapse": result.collapse}


def mean(cells: list[dict[str, Any]], name: str, key: str = "value") -> float | None:
    """Average a figure over a method's cells that have it."""
    values = [c[name][key] for c in cells if c.get(name)]
    return statistics.mean(values) if values else None


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each method: means over its targets, retained shares as part of the unedited model's."""
    rows = []
    for method in dict.fromkeys(c["method"] for c in cells):
        own = [c for c in cells if c["method"] == method and "error" not in c]
        row: dict[str, Any] = {"method": method, "targets": len(own)}
        if own:
            row |= {"ua": mean(own, "ua"), "synonyms": mean(own, "synonyms")}
            for name in ("ira", "cra", "near"):
                edited, original = mean(own, name), mean(own, name, "original")
                row[name] = edited / original if edited is not None and original else None
            for name in ("seconds", "unet_evaluations", "peak_megabytes", "artifact_megabytes"):
                row[name] = statistics.mean(c[name] for c in own)
        rows.append(row)
    return rows


def is_dominated(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether another method forgets and retains better."""
    return any(o["ua"] > row["ua"] and o["ira"] > row["ira"] for o in rows)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the comparison as Markdown; the Pareto front is bold."""
    measured = [row for row in rows if row.get("ua") is not None]

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.0f} %"

    lines = [
        "| method | UA by name | UA by synonyms | IRA kept | nearest kept | CRA kept | seconds | UNet passes | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(measured, key=lambda row: -(row["ua"] + row["ira"])):
        name = row["method"] if is_dominated(row, measured) else f"**{row['method']}**"
        figures = [share(row[key]) for key in ("ua", "synonyms", "ira", "near", "cra")]
        costs = [f"{row['seconds']:.1f}", f"{row['unet_evaluations']:,.0f}", f"{row['artifact_megabytes']:.2f}"]
        lines.append(f"| {' | '.join([name, *figures, *costs])} |")
    return "\n".join(lines) + "\n"


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw forgetting against retention, a point for each method, the front joined."""
    from matplotlib import pyplot as plt

    measured = [row for row in rows if row.get("ua") is not None]
    figure, axis = plt.subplots(figsize=(8, 5.2), dpi=120)
    front = sorted((r for r in measured if not is_dominated(r, measured)), key=lambda r: r["ira"])
    axis.plot([r["ira"] for r in front], [r["ua"] for r in front], color="#c44", linewidth=1, zorder=1)
    for row in measured:
        axis.scatter(row["ira"], row["ua"], s=28, color="#c44" if row in front else "#567", zorder=2)
        axis.annotate(row["method"], (row["ira"], row["ua"]), textcoords="offset points", xytext=(5, 4), fontsize=8)
    axis.set_xlabel("other concepts kept (IRA, share of the unedited model's)")
    axis.set_ylabel("target forgotten (UA)")
    axis.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every cell that is not there yet, each in its own process, and keep it at once."""
    cells = json.loads(args.output.read_text())["cells"] if args.output.exists() else []
    done = {(c["method"], c["target"]) for c in cells}
    for method in args.methods:
        for target in args.targets:
            if (method, target) in done:
                continue
            command = [sys.executable, __file__, "--cell", method, target]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.returncode:
                print(f"{method} on {target} failed:\n{found.stderr[-2000:]}", file=sys.stderr, flush=True)
                continue
            cells.append(json.loads(found.stdout.splitlines()[-1]))
            partial = args.output.with_suffix(".tmp")
            partial.write_text(json.dumps({"summary": summary(cells), "cells": cells}, indent=1) + "\n")
            partial.replace(args.output)
            shown = {k: round(cells[-1][k]["value"], 3) for k in ("ua", "synonyms", "ira", "cra") if cells[-1].get(k)}
            print(f"{method} on {target}: {shown or cells[-1].get('error')}", flush=True)
    return cells


def main() -> None:
    """Measure, then write table and picture if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--table", type=Path, help="write the Markdown table here")
    parser.add_argument("--picture", type=Path, help="write the Pareto picture here")
    parser.add_argument("--cell", nargs=2, metavar=("METHOD", "TARGET"), help="measure one cell and print it as JSON")
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(cell(*args.cell)))
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    rows = summary(run(args))
    print(table(rows))
    if args.table:
        args.table.write_text(table(rows))
    if args.picture:
        picture(rows, args.picture)


if __name__ == "__main__":
    main()
