"""What forgetting takes: seconds and UNet evaluations until a target is in one picture of ten, for every method.

A closed form, and what acts while pictures are drawn, is one point. A trained method is stopped after growing shares of
its recipe's steps, each time in a run of its own from the beginning (seconds and evaluations are what a user who stops
there pays, preparation included), and judged there, until UA reaches 0.9. A run that is asked to stop gives its best
state, as it would for a user. What never reaches 0.9 is told as such.

Resumes: what the output holds is not measured again. Nothing is found in a cache.

Example:
    python benchmarks/end_to_end.py --methods esd uce --targets cat --output /tmp/end_to_end.json
    python benchmarks/end_to_end.py --table
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from measuring import Bench, Rows, add_judging_options, judging
from methods import TARGETS, forget_and_judge

from aizheimer._registry import METHODS
from aizheimer.engine.callbacks import Callbacks, Row
from aizheimer.recipes.load import load_recipe

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the recipe's steps; each is a run of its own, so all of them cost at most twice the last."""
REACHED = 0.9
RESULTS = Path("benchmarks/results/end_to_end.json")


def steps_of(method: str) -> int | None:
    """Return how many steps a method's recipe trains; None for what does not train."""
    name, *overrides = method.split()
    training = getattr(load_recipe(name, overrides).method, "training", None)
    return None if training is None else training.steps


def points_of(method: str, shares: list[float]) -> list[int]:
    """Return the step counts that a method is judged at; 0 is the only one of a method without steps."""
    steps = steps_of(method)
    return [0] if steps is None else sorted({max(1, round(share * steps)) for share in shares})


def stopping_at(step: int) -> Callbacks:
    """Return callbacks that stop a run after a step, unless it ends there anyway."""
    done: list[int] = []

    def hear(row: Row) -> None:
        if row["step"] == step < row["steps"]:
            done.append(step)

    return Callbacks(on_step=hear, should_stop=lambda: bool(done))


def measure(method: str, target: str, *, step: int, bench: Bench) -> dict[str, Any]:
    """Forget as far as a step, and judge."""
    found, noted = forget_and_judge(method, target, bench=bench, callbacks=stopping_at(step))
    row = {"method": method, "target": target, "step": step, **found}
    return row if "error" in row else row | {"kept_step": noted.get("step", 0)}


def run(methods: list[str], targets: list[str], shares: list[float], *, bench: Bench, rows: Rows) -> None:
    """Measure what is missing: of each method and target, points until one of them is there."""
    for method in methods:
        for target in targets:
            for step in points_of(method, shares):
                row = rows.find(method=method, target=target, step=step)
                if row is None:
                    row = measure(method, target, step=step, bench=bench)
                    rows.add(row, reached=REACHED, settings=bench.settings.model_dump(mode="json"))
                    print(f"{method} on {target}, step {step}: {told(row)}", flush=True)
                if "error" in row or row["ua"]["value"] >= REACHED:
                    break


def told(row: dict[str, Any]) -> str:
    """Return a row in words."""
    if "error" in row:
        return row["error"]
    share = row["ira"]["value"] / row["ira"]["original"] if row["ira"]["original"] else float("nan")
    spent = f"{row['seconds']:.1f} s, {row['unet_evaluations']:,} UNet evaluations"
    return f"UA {row['ua']['value']:.2f}, IRA kept {share:.2f}, {spent}"


def table(rows: list[dict[str, Any]]) -> str:
    """Return one line for each method as Markdown: medians over the targets on which it reached the bar."""
    lines = [
        f"| method | targets at UA {REACHED} | step | seconds | UNet evaluations | UA then | IRA kept then |",
        "| --- |" + " ---: |" * 6,
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method and "error" not in row]
        asked = {row["target"] for row in rows if row["method"] == method}
        # The points of a target grow, and end with the first that is there.
        there = [row for row in own if row["ua"]["value"] >= REACHED]
        cells = [method, f"{len({row['target'] for row in there})} of {len(asked)}"]
        if there:
            step, seconds, passes = (
                statistics.median(row[name] for row in there) for name in ("step", "seconds", "unet_evaluations")
            )
            ua = statistics.median(row["ua"]["value"] for row in there)
            kept = [row["ira"]["value"] / row["ira"]["original"] for row in there if row["ira"]["original"]]
            cells += [f"{step:.0f}" if step else "", f"{seconds:.1f}", f"{passes:,.0f}", f"{100 * ua:.0f} %"]
            cells.append(f"{100 * statistics.median(kept):.0f} %" if kept else "")
        else:
            best = max((row["ua"]["value"] for row in own), default=None)
            cells += ["", "", "", "none" if best is None else f"none ({100 * best:.0f} %)", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="names, with overrides if any")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS[::2]))
    parser.add_argument("--shares", nargs="*", type=float, default=list(SHARES), help="of a recipe's steps")
    add_judging_options(parser)
    parser.add_argument("--table", action="store_true", help="only print what is there as Markdown")
    args = parser.parse_args()
    rows = Rows(args.output, key=("method", "target", "step"))
    if not args.table:
        run(args.methods, args.targets, args.shares, bench=Bench(**judging(args)), rows=rows)
    print(table(rows.rows))


if __name__ == "__main__":
    main()
