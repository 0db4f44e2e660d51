"""The targets as the unedited model, the oracle and some methods draw them, from the same noise.

Example:
    python benchmarks/oracle_picture.py --unet models/emoji/build/oracle.pt --picture docs/images/oracle.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from measuring import SETTINGS, Bench
from oracle_distance import Oracle

from aizheimer.edits import load_edit
from aizheimer.evaluation.evaluate import AppliedEdit, draw_pairs
from aizheimer.evaluation.plan import PlannedImage

matplotlib.use("Agg")

TARGETS = ("cat", "jack-o-lantern", "rocket", "pizza", "Santa Claus", "old woman")
METHODS = ("uce", "aizheimer")
STYLES = ("noto", "twemoji")
SEED = 0


def rows(bench: Bench, oracle: Oracle, edits: Path) -> list[tuple[str, list[np.ndarray]]]:
    """Return a name and the pictures of every target in every style, for each model."""
    backbone = bench.fast
    drawn: dict[str, list[np.ndarray]] = {}
    for target in TARGETS:
        plan = [PlannedImage("target", f"{target} in {style} style", SEED, target, style) for style in STYLES]
        models: dict[str, AppliedEdit] = {"oracle": oracle}
        models |= {name: load_edit(edits / name / target.replace(" ", "-")) for name in METHODS}
        for name, edit in models.items():
            pairs = draw_pairs(
                backbone.pipe, edit, plan=plan, settings=bench.settings, guidance=backbone.world.guidance
            )
            if name == "oracle":
                drawn.setdefault("unedited", []).extend(pairs.original)
            drawn.setdefault(name, []).extend(pairs.edited)
    return list(drawn.items())


def picture(models: list[tuple[str, list[np.ndarray]]], path: Path) -> None:
    """Draw a row for each model and a column for each target and style."""
    from matplotlib import pyplot as plt

    columns = len(models[0][1])
    figure, axes = plt.subplots(len(models), columns, figsize=(0.95 * columns + 0.9, 1.0 * len(models) + 0.3))
    for (name, images), line in zip(models, axes, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, interpolation="lanczos")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    figure.tight_layout(pad=0.3)
    figure.canvas.draw()
    for index, target in enumerate(TARGETS):
        left, right = (axes[0][len(STYLES) * index + k].get_position() for k in (0, len(STYLES) - 1))
        figure.text((left.x0 + right.x1) / 2, left.y1 + 0.02, target, ha="center", fontsize=11)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", type=Path, required=True, help="checkpoint of the training without the targets")
    parser.add_argument("--edits", type=Path, default=Path("build/method-edits"), help="where methods.py keeps edits")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/oracle.png"))
    args = parser.parse_args()
    bench = Bench(settings=SETTINGS.model_copy(update={"precision": "bfloat16"}))
    picture(rows(bench, Oracle.load(args.unet), args.edits), args.picture)
    print(args.picture)


if __name__ == "__main__":
    main()
