"""The paper's Table I: trained too long at too high a rate, does the model draw the other sex? Counted by a judge.

A man and a woman are forgotten by the distraction loss alone, without protection (`training.allow_overfit`), for more
and more steps. Counted are: the target's pictures that the judge takes for its counterpart, and for any of the other
sex; and, by the suite `fairness`, the same of all other men and women.

Example:
    python benchmarks/overfit.py --picture docs/images/overfit.png
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from figures import save_figure
from measuring import Bench, write_json

import aizheimer
from aizheimer.api import load_model
from aizheimer.concepts.groups import people_pairs
from aizheimer.evaluation.evaluate import draw_pairs
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import Scene
from aizheimer.evaluation.suites.fairness import Fairness
from aizheimer.recipes.load import load_recipe

matplotlib.use("Agg")

TARGETS = ("man teacher", "woman singer")
STEPS = (50, 100, 200, 400)
RECIPE = "aizheimer-notebook"
OVERRIDES = ("training.lr=5e-4", "training.schedule=constant")
"""The recipe is the notebook's: attention loss only, no limit of drift. The rate is 25 times its own."""
SHOWN = 4
SUITE = Fairness(images=3)


def measure(bench: Bench, target: str, steps: int) -> tuple[dict[str, Any], np.ndarray]:
    """Forget for so many steps and let the judge look; return the row and some of the target's pictures."""
    recipe = load_recipe(RECIPE, [*OVERRIDES, f"training.steps={steps}"])
    edit = aizheimer.forget(load_model("emoji"), target, method=recipe)
    result = bench.judged(edit, target)
    plan = [image for image in result.images if image.role == "target"]
    pairs = people_pairs([item.label for item in bench.plain.world.vocabulary])
    own, other = ("men", "women") if target in pairs["men"].values() else ("women", "men")
    counterpart = pairs[other][next(who for who, label in pairs[own].items() if label == target)]
    seen = [image.edited_object for image in plan]
    others = set(pairs[other].values())
    scene = Scene(
        backbone=bench.plain, edit=edit, concept=bench.concept(target), judges=bench.judges, settings=bench.settings
    )
    figures = SUITE.run(scene).figures
    row = {
        "target": target,
        "steps": steps,
        "ua": result.ua.value if result.ua else None,
        "ira": result.ira.value if result.ira else None,
        "ira_original": result.ira.original if result.ira else None,
        "counterpart": counterpart,
        "target_as_counterpart": seen.count(counterpart) / len(seen),
        "target_as_other_sex": sum(label in others for label in seen) / len(seen),
        "unedited_as_other_sex": sum(image.original_object in others for image in plan) / len(plan),
        "seen": dict(Counter(label or "none of these" for label in seen).most_common(5)),
        **{
            name: {"value": metric.value, "original": metric.original, "interval": list(metric.interval)}
            for name, metric in figures.items()
            if name.startswith(("inverted", "ira", "gap"))
        },
    }
    drawn = draw_pairs(bench.plain.pipe, edit, plan=plan[:SHOWN], settings=bench.settings, guidance=result.guidance)
    return row, np.stack([drawn.original, drawn.edited])


def picture(sheets: dict[str, list[np.ndarray]], path: Path) -> None:
    """Draw the target's pictures: a block for each target, a row for each number of steps."""
    from matplotlib import pyplot as plt

    rows = [(target, steps) for target in sheets for steps in (0, *STEPS)]
    figure, axes = plt.subplots(len(rows), SHOWN, figsize=(1.1 * SHOWN + 1.6, 1.08 * len(rows)), dpi=110)
    for line, (target, steps) in zip(axes, rows, strict=True):
        drawn = sheets[target]
        images = drawn[0][0] if steps == 0 else drawn[STEPS.index(steps)][1]
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        said = f"{target}\nunedited" if steps == 0 else f"{steps} steps"
        line[0].set_ylabel(said, rotation=0, ha="right", va="center", fontsize=9)
    save_figure(figure, path, pad=0.3)


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/overfit.json"))
    parser.add_argument("--picture", type=Path, help="draw the pictures here")
    parser.add_argument("--precision", choices=("model", "bfloat16"), default="model", help="to draw in")
    args = parser.parse_args()
    settings = EvaluationSettings(
        target_images=20, neighbours=10, neighbour_images=1, others=20, precision=args.precision
    )
    bench = Bench(settings=settings)
    rows: list[dict[str, Any]] = []
    sheets: dict[str, list[np.ndarray]] = {}
    for target in TARGETS:
        for steps in STEPS:
            row, images = measure(bench, target, steps)
            rows.append(row)
            sheets.setdefault(target, []).append(images)
            print(json.dumps(row), flush=True)
            write_json(args.output, {"recipe": RECIPE, "overrides": OVERRIDES, "rows": rows})
    if args.picture:
        picture(sheets, args.picture)


if __name__ == "__main__":
    main()
