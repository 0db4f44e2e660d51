"""The strength dial: what of a concept is gone, and what of the rest is left, between no edit and a whole one.

Example:
    python benchmarks/strength.py --picture docs/images/strength.png
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from figures import save_figure
from measuring import METRICS, SETTINGS, Bench, write_json

import aizheimer
from aizheimer.api import load_model

matplotlib.use("Agg")

TARGETS = ("penguin", "princess", "Santa Claus", "pizza", "rocket", "ghost")
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def measure(bench: Bench, target: str, method: str) -> list[dict[str, Any]]:
    """Forget once and judge the edit at every strength."""
    edit = aizheimer.forget(load_model("emoji"), target, method=method)
    rows = []
    for strength in STRENGTHS:
        figures, _ = bench.figures(edit.scale(strength), target)
        rows.append({"target": target, "strength": strength, **figures})
        shown = {name: round(figures[name]["value"], 3) for name in METRICS if name in figures}
        print(f"{target} at {strength}: {shown}", flush=True)
    return rows


def means(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return UA and the kept share of IRA, means over targets at each strength, and whether UA never falls up to 1."""
    at = [[row for row in rows if row["strength"] == strength] for strength in STRENGTHS]
    ua = [float(np.mean([row["ua"]["value"] for row in some])) for some in at]
    ira = [float(np.mean([row["ira"]["value"] / row["ira"]["original"] for row in some])) for some in at]
    return {"strength": list(STRENGTHS), "ua": ua, "ira_kept": ira}


def is_monotone(rows: list[dict[str, Any]], target: str) -> bool:
    """Whether a target's UA never falls as the strength grows from 0 to 1."""
    values = [row["ua"]["value"] for row in rows if row["target"] == target and row["strength"] <= 1]
    return all(a <= b for a, b in itertools.pairwise(values))


def picture(content: dict[str, Any], path: Path) -> None:
    """Draw each target's UA thin, the means thick."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7.5, 4.5), dpi=120)
    for target in dict.fromkeys(row["target"] for row in content["rows"]):
        own = [row for row in content["rows"] if row["target"] == target]
        axis.plot([r["strength"] for r in own], [r["ua"]["value"] for r in own], color="#c44", alpha=0.3, linewidth=1)
    mean = content["mean"]
    axis.plot(mean["strength"], mean["ua"], color="#c44", linewidth=2.5, label="forgotten (UA): mean, and each target")
    axis.plot(mean["strength"], mean["ira_kept"], color="#567", linewidth=2.5, label="other concepts kept (IRA)")
    axis.set_xlabel("strength of the edit")
    axis.set_ylim(-0.03, 1.08)
    axis.grid(alpha=0.3)
    axis.legend(loc="center right")
    save_figure(figure, path)


def main() -> None:
    """Measure the targets that the output does not hold, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/strength.json"))
    parser.add_argument("--method", default="aizheimer")
    parser.add_argument("--precision", choices=("model", "bfloat16"), default="model", help="to draw in")
    parser.add_argument("--picture", type=Path, help="draw the curves here")
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    bench = Bench(settings=SETTINGS.model_copy(update={"precision": args.precision}))
    for target in TARGETS:
        if any(row["target"] == target for row in rows):
            continue
        rows += measure(bench, target, args.method)
        monotone = {t: is_monotone(rows, t) for t in dict.fromkeys(row["target"] for row in rows)}
        write_json(
            args.output,
            {
                "method": args.method,
                "precision": args.precision,
                "monotone": monotone,
                "mean": means(rows),
                "rows": rows,
            },
        )
    content = json.loads(args.output.read_text())
    print(json.dumps({"mean": content["mean"], "monotone": content["monotone"]}))
    if args.picture:
        picture(content, args.picture)


if __name__ == "__main__":
    main()
