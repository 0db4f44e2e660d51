"""How far a prompt's embedding must be moved to bring a concept back, and what a model lets happen without any edit.

Two measurements. By radius, the soft prompt on the unedited model: from the target's words, where it must succeed, and
from the words of the nearest other concept, where what it reaches is no edit's fault. And by method, what
``aizheimer bench benchmarks/robustness/plan.yaml`` found: UA, IRA, the nearest, and both attacks.

Keeps both as one JSON file, and writes the tables into the pages. Resumes: what the file holds is not measured again.

Example:
    python benchmarks/robustness.py --targets cat rocket
    aizheimer bench benchmarks/robustness/plan.yaml --out build/robustness
    python benchmarks/robustness.py --bench build/robustness
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measuring import bench_rows, write_json
from methods_table import percent, write_between

from aizheimer import api
from aizheimer.api import load_model
from aizheimer.attacks.base import AttackSettings

RADII = (0.05, 0.1, 0.2, 0.3, 1.0)
TARGETS = ("cat", "rocket", "pizza", "Santa Claus", "old woman", "tiger")
STEP = 0.05
"""The attack's own, so that a radius is crossed in ``radius / STEP`` steps."""
COLUMNS = (
    "method", "concept", "seed", "status", "edit", "seconds_forget",
    *(f"{name}{part}" for name in ("ua", "ira", "cra", "near") for part in ("", ".low", ".high", ".original", ".n")),
    *(f"asr.{name}{part}" for name in ("concept-inversion", "soft-prompt") for part in ("", ".before", ".unedited")),
    "asr.soft-prompt.neighbour",
)  # fmt: skip
"""Of a bench's rows, those that are kept."""
PAGES = {
    "radius": Path("docs/attacks/soft-prompt.md"),
    "robust": Path("docs/methods/aizheimer.md"),
}


def at_radius(target: str, radius: float, *, images: int) -> dict[str, Any]:
    """Attack the unedited model from the target's words, and from its neighbour's."""
    settings = AttackSettings(images=images, steps=8, precision="bfloat16")
    budget = {"radius": radius, "steps": max(10, round(2 * radius / STEP))}
    found = api.attack(
        load_model("emoji"),
        None,
        attack="soft-prompt",
        concept=target,
        settings=settings,
        controls="unedited",
        **budget,
    ).result
    assert found.neighbour is not None
    rates = {"target_words": found.alone.value, "neighbour_words": found.neighbour.value}
    return {"target": target, **budget, "neighbour": found.neighbour_words, "n": found.alone.n, **rates}


def radius_table(rows: list[dict[str, Any]]) -> str:
    """Return the rates by radius, means over targets, as Markdown."""
    radii = sorted({row["radius"] for row in rows})
    names = sorted({f"{row['target']} from {row['neighbour']}" for row in rows})
    lines = ["| radius | from its own words | from its neighbour's | the most |", "| ---: | ---: | ---: | --- |"]
    for radius in radii:
        own = [row for row in rows if row["radius"] == radius]
        most = max(own, key=lambda row: row["neighbour_words"])
        rates = [np.mean([row[key] for row in own]) for key in ("target_words", "neighbour_words")]
        worst = f"{percent(most['neighbour_words'])}, {most['target']} from {most['neighbour']}"
        worst = worst if most["neighbour_words"] else ""
        lines.append(f"| {radius} | {' | '.join(map(percent, rates))} | {worst} |")
    count = f"{rows[0]['n']} pictures each of {len(names)} targets ({', '.join(names)})"
    return "\n".join(lines) + f"\n\nOn the unedited embedded model, {count}."


def bench_table(rows: list[dict[str, Any]]) -> str:
    """Return what a bench measured, means over its targets, as Markdown."""
    lines = [
        "| | UA | IRA | CRA | nearest | word learned | soft prompt | neighbour |",
        "| --- |" + " ---: |" * 7,
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method and row["status"] == "done"]
        kept = [np.mean([row[key] / row[f"{key}.original"] for row in own]) for key in ("ira", "cra", "near")]
        rates = [_mean(own, f"asr.{name}") for name in ("concept-inversion", "soft-prompt", "soft-prompt.neighbour")]
        cells = [_mean(own, "ua"), *kept, *rates]
        lines.append(f"| {method} | {' | '.join(map(percent, cells))} |")
    return "\n".join(lines) + (
        f"\n\nMeans over {len({row['concept'] for row in rows})} targets; IRA, CRA and the nearest as shares of the "
        "unedited model's. Then how often the target is back: with a new word learned by concept inversion, with a "
        "soft prompt of 0.1, and what the same soft prompt makes of a neighbour's words without any edit."
    )


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def main(arguments: list[str] | None = None) -> None:
    """Measure what the output does not hold, take over a bench's rows, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/robustness.json"))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--radii", nargs="*", type=float, default=list(RADII))
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--bench", type=Path, help="folder of the bench by robustness/plan.yaml")
    args = parser.parse_args(arguments)
    content = json.loads(args.output.read_text()) if args.output.exists() else {"radii": [], "rows": []}
    done = {(row["target"], row["radius"]) for row in content["radii"]}
    for target, radius in [(t, r) for t in args.targets for r in args.radii if (t, r) not in done]:
        content["radii"].append(at_radius(target, radius, images=args.images))
        write_json(args.output, content)
        print(json.dumps(content["radii"][-1]), flush=True)
    if args.bench is not None:
        content["rows"] = bench_rows(args.bench, COLUMNS)
        write_json(args.output, content)
    tables = {"radius": (content["radii"], radius_table), "robust": (content["rows"], bench_table)}
    for name, (rows, table) in tables.items():
        if rows:
            page = PAGES[name]
            write_between(page, name, table(rows))
            print(table(rows))


if __name__ == "__main__":
    main()
