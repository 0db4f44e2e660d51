"""The paper's Table III on the embedded model: three losses, all layers or first and last skipped, same seeds.

Forgets Santa Claus six times with one recipe and draws, from the same noise, the target, a similar concept and two
dissimilar ones. Writes the picture, and as numbers, over five styles and several seeds: how often the judge still names
the concept, and how far the pictures moved (mean absolute difference, 0 to 1).

Usage:
    python benchmarks/paper_table3.py --out benchmarks/results/paper_table3.json --picture docs/images/table3.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from figures import save_figure

import aizheimer
from aizheimer.api import load_model
from aizheimer.backbones.base import Backbone
from aizheimer.detectors.base import Judge
from aizheimer.edits.edit import Edit
from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.evaluation.judges import load_judges
from aizheimer.recipes.load import load_recipe

matplotlib.use("Agg")

TARGET = "Santa Claus"
COLUMNS = {"Santa Claus": "target", "Mrs. Claus": "similar", "pizza": "dissimilar", "rocket": "dissimilar"}
LOSSES = ("resteering", "distraction", "random_stimulus")
LAYERS = ("all", "skip_ends")
SEEDS = 4


def jobs(backbone: Backbone, label: str) -> list[PromptJob]:
    """Return every style from every seed; the first is the one shown."""
    return [PromptJob(prompt, seed) for seed in range(SEEDS) for prompt in backbone.world.prompts_for(label)]


def draw(backbone: Backbone) -> dict[str, np.ndarray]:
    """Return uint8 pictures (n, height, width, 3) of every column as the model draws now."""
    guidance = backbone.world.guidance
    return {
        label: generate(backbone.pipe, jobs(backbone, label), guidance=guidance, batch_size=20) for label in COLUMNS
    }


def numbers(judge: Judge, before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return what the judge says of every column, and how far it moved."""
    return {
        label: {
            "still_named": float(np.mean([name == label for name in judge.judge(after[label]).labels])),
            "moved": float(np.abs(after[label].astype(float) - before[label]).mean() / 255),
        }
        for label in COLUMNS
    }


def variant(backbone: Backbone, recipe: str, loss: str, layers: str, overrides: list[str]) -> Edit:
    """Forget the target with one loss and one choice of layers."""
    chosen = load_recipe(recipe, [f"loss={loss}", f"layers={layers}", *overrides])
    return aizheimer.forget(backbone, TARGET, method=chosen)


def picture(rows: list[tuple[str, dict[str, np.ndarray]]], path: Path) -> None:
    """Draw the table: a row for each variant, the same noise in every row."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(rows), len(COLUMNS), figsize=(1.7 * len(COLUMNS) + 1.6, 1.62 * len(rows)), dpi=110)
    for line, (name, images) in zip(axes, rows, strict=True):
        for axis, (label, role) in zip(line, COLUMNS.items(), strict=True):
            axis.imshow(images[label][0], interpolation="lanczos")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if name == rows[0][0]:
                axis.set_title(f"{label}\n({role})", fontsize=9)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    save_figure(figure, path, pad=0.4)


def main() -> None:
    """Make the six edits, the picture and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="aizheimer-paper")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/paper_table3.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/table3.png"))
    parser.add_argument("overrides", nargs="*", help="key=value parameters for every variant")
    args = parser.parse_args()
    backbone = load_model("emoji")
    judge = load_judges(backbone.world).object
    before = draw(backbone)
    rows, table = [("Original", before)], {"original": numbers(judge, before, before)}
    for loss in LOSSES:
        for layers in LAYERS:
            edit = variant(backbone, args.recipe, loss, layers, args.overrides)
            with edit.applied(backbone.pipe):
                after = draw(backbone)
            name = f"{loss.replace('_', ' ')}\n{'all layers' if layers == 'all' else 'ends skipped'}"
            rows.append((name, after))
            table[f"{loss}/{layers}"] = numbers(judge, before, after)
            print(f"{loss} {layers}: {json.dumps(table[f'{loss}/{layers}'])}", flush=True)
    picture(rows, args.picture)
    settings: dict[str, Any] = {"recipe": args.recipe, "overrides": args.overrides, "pictures_per_cell": 5 * SEEDS}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"settings": settings, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
