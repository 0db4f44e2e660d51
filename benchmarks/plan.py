"""What `aizheimer plan` predicts, against what a run then takes.

For each method a plan is made and a short run is measured on the same model: peak memory as PyTorch's allocator sees it
above the weights, seconds a step, and the sizes of edit and checkpoint. Total time is not compared: the run is shorter.

Usage:
    python benchmarks/plan.py [--model emoji] [--concept penguin] [--methods esd aizheimer] [--steps 5] [--out FILE]
    [KEY=VALUE...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from measuring import write_json

from aizheimer.api import as_concept, forget, load_model, load_recipe, plan
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.memory import allocated_peak, weight_bytes
from aizheimer.engine.callbacks import Callbacks

METHODS = ("esd", "aizheimer", "concept-ablation", "spm", "forget-me-not")


def compare(backbone: Backbone, concept: str, *, method: str, overrides: list[str], steps: int) -> dict[str, Any]:
    """Return predicted and measured figures of one method, and their ratios."""
    content = load_recipe(method).method
    own = ["start=null", "enough=null"] if "start" in type(content).model_fields else []
    recipe = load_recipe(method, [f"training.steps={steps}", "training.drift_limit=null", *own, *overrides])
    predicted = plan(backbone, concept, method=recipe)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        target = as_concept(concept, world=backbone.world)
        callbacks = Callbacks(on_step=lambda row: seconds.append(row["seconds"]))
        out = Path(folder) / "run"
        peak = allocated_peak(
            lambda: forget(backbone, target, method=recipe, out=out, callbacks=callbacks), backbone.device
        )
        sizes = {path.name: path.stat().st_size for path in out.iterdir() if path.is_file()}
    measured = {
        "peak_bytes": weight_bytes(backbone.components.values()) + peak,
        "step_seconds": statistics.median(seconds[1:] or seconds),
        "edit_bytes": sum(size for name, size in sizes.items() if name.startswith("edit.")),
        "checkpoint_bytes": sum(size for name, size in sizes.items() if name.startswith("checkpoint")),
    }
    expected = {
        "peak_bytes": predicted.memory["peak"],
        "step_seconds": predicted.seconds["step"],
        "edit_bytes": predicted.disk["edit"],
        "checkpoint_bytes": predicted.disk["checkpoint"],
    }
    ratios = {name: expected[name] / value for name, value in measured.items() if value}
    return {
        "predicted": expected,
        "measured": measured,
        "predicted / measured": ratios,
        "plan": predicted.model_dump(mode="json"),
    }


def main() -> None:
    """Compare every method, print and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="parameters of every method")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--concept", default="penguin")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "plan.json")
    args = parser.parse_args()
    backbone = load_model(args.model)
    results: dict[str, Any] = {}
    for method in args.methods:
        results[method] = compare(backbone, args.concept, method=method, overrides=args.overrides, steps=args.steps)
        content = {
            "model": args.model,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "overrides": args.overrides,
            "results": results,
        }
        write_json(args.out, content)
        print(method, json.dumps(results[method]["predicted / measured"]))


if __name__ == "__main__":
    main()
