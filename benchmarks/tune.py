"""Try a method's settings on the two tuning targets, which are in no table, and record what was tried.

Example:
    python benchmarks/tune.py spm "" "training.lr=8e-3" "training.lr=8e-3 training.steps=100"
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from measuring import METRICS, SETTINGS, Bench, write_json

import aizheimer
from aizheimer.api import load_model
from aizheimer.errors import AizheimerError
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.recipes.load import load_recipe

TUNING_TARGETS = ("penguin", "princess")
FOLDER = Path("benchmarks/results/tuning")


def attempt(bench: Bench, method: str, overrides: list[str], target: str) -> dict[str, Any]:
    """Forget and judge; a method that refuses is recorded with its reason."""
    backbone, started = load_model("emoji"), time.perf_counter()
    try:
        edit = aizheimer.forget(backbone, target, method=load_recipe(method, overrides))
    except AizheimerError as error:
        return {"error": str(error)}
    seconds = round(time.perf_counter() - started, 1)
    figures, _ = bench.figures(edit, target)
    row: dict[str, Any] = {"seconds": seconds}
    for name in (*METRICS, "synonyms"):
        if name in figures:
            row |= {name: round(figures[name]["value"], 4), f"{name}_original": round(figures[name]["original"], 4)}
    extra = edit.provenance.extra
    return row | {key: extra[key] for key in ("stopped", "step", "residual", "retention_drift") if key in extra}


def main() -> None:
    """Measure each variant on each target and add it to the method's record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="a recipe's or a method's name")
    parser.add_argument("variants", nargs="*", default=[""], help="overrides, one string for each variant")
    parser.add_argument("--targets", nargs="*", default=list(TUNING_TARGETS))
    parser.add_argument("--samples", type=int, default=45, help="pictures an edit is judged by, beside the synonyms'")
    parser.add_argument("--output", type=Path, help="the record; by default the method's in benchmarks/results/tuning")
    args = parser.parse_args()
    output = args.output or FOLDER / f"{args.method}.json"
    record: dict[str, Any] = {"method": args.method, "model": "emoji", "tried": []}
    if output.exists():
        record = json.loads(output.read_text())
    bench = Bench(settings=EvaluationSettings.sized(args.samples, precision=SETTINGS.precision))
    weights = bench.plain.fingerprint()
    for variant in args.variants:
        for target in args.targets:
            row = attempt(bench, args.method, variant.split(), target)
            tried = {
                "name": variant or "the recipe",
                "concept": target,
                "weights": weights,
                "samples": args.samples,
                **row,
            }
            tried["recipe"] = load_recipe(args.method, variant.split()).resolved()["parameters"]
            record["tried"].append(tried)
            write_json(output, record)
            shown = {k: row[k] for k in (*METRICS, "synonyms", "seconds", "step", "stopped", "error") if k in row}
            print(f"{args.method} {variant} on {target}: {shown}", flush=True)


if __name__ == "__main__":
    main()
