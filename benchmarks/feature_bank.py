"""How near training on kept queries comes to training through the network, and what it saves.

The same recipe (the default's losses, without its closed form) in four ways, on some targets:

- through the network, all its steps, and as few as a warm start is followed by;
- on the bank alone, as many steps;
- on the bank, and then a few steps through the network.

Of each: UA and IRA by the judges, seconds and UNet evaluations with all preparation, and what the run itself saw last:
attention mass relative to the start, and drift (of layers' answers on the bank, of predictions through the network).

Resumes: what the output holds is not measured again. Nothing is found in a cache.

Usage:
    python benchmarks/feature_bank.py [--targets cat pizza] [--steps 120] [--after 10 30] [--output FILE]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from measuring import Bench, Rows, add_judging_options, judging
from methods import TARGETS, forget_and_judge

RECIPE = "aizheimer start=null enough=null"
RESULTS = Path("benchmarks/results/feature_bank.json")


def ways(steps: int, after: list[int]) -> dict[str, str]:
    """Return what is compared: a name, and the method with its overrides.

    Args:
        steps: Of training through the network, and of training on the bank.
        after: Steps through the network after the bank.
    """
    found = {"network": f"{RECIPE} training.steps={steps}"}
    found |= {f"network, {few}": f"{RECIPE} training.steps={few}" for few in after}
    found["bank"] = f"{RECIPE} bank={{}} training.steps={steps}"
    for few in after:
        found[f"bank, then {few}"] = f"{RECIPE} bank.warm_start={steps} training.steps={few}"
    return found


def measure(way: str, method: str, target: str, *, steps: int, bench: Bench) -> dict[str, Any]:
    """Forget one target in one way, and judge."""
    found, noted = forget_and_judge(method, target, bench=bench)
    seen = ("step", "stopped", "mass_ratio", "attention_mass", "retention_drift")
    own = {name: noted[name] for name in seen if name in noted}
    return {"way": way, "method": method, "target": target, "steps": steps, **found, **own}


def table(rows: list[dict[str, Any]]) -> str:
    """Return one line for each way and number of steps as Markdown: means over targets."""
    lines = ["| way | steps | targets | UA | IRA kept | seconds | UNet evaluations |", "| --- |" + " ---: |" * 6]
    for way, steps in dict.fromkeys((row["way"], row["steps"]) for row in rows):
        own = [row for row in rows if (row["way"], row["steps"]) == (way, steps) and "error" not in row]
        if not own:
            continue
        ua = statistics.mean(row["ua"]["value"] for row in own)
        kept = [row["ira"]["value"] / row["ira"]["original"] for row in own if row["ira"]["original"]]
        cells = [way, str(steps), str(len(own)), f"{100 * ua:.0f} %"]
        cells.append(f"{100 * statistics.mean(kept):.0f} %" if kept else "")
        cells += [f"{statistics.mean(row[name] for row in own):,.0f}" for name in ("seconds", "unet_evaluations")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--targets", nargs="*", default=list(TARGETS[::2]))
    parser.add_argument("--steps", type=int, default=120, help="through the network, and on the bank")
    parser.add_argument("--after", nargs="*", type=int, default=[10, 30], help="through the network after the bank")
    parser.add_argument("--ways", nargs="*", help="only these")
    add_judging_options(parser)
    parser.add_argument("--table", action="store_true", help="only print what is there as Markdown")
    args = parser.parse_args()
    rows = Rows(args.output, key=("way", "target", "steps"))
    if not args.table:
        bench = Bench(**judging(args))
        for target in args.targets:
            for way, method in ways(args.steps, args.after).items():
                if (args.ways and way not in args.ways) or rows.find(way=way, target=target, steps=args.steps):
                    continue
                row = measure(way, method, target, steps=args.steps, bench=bench)
                rows.add(row, settings=bench.settings.model_dump(mode="json"))
                shown = row.get("error") or {key: row[key]["value"] for key in ("ua", "ira")} | {"s": row["seconds"]}
                print(f"{way} on {target}: {shown}", flush=True)
    print(table(rows.rows))


if __name__ == "__main__":
    main()
