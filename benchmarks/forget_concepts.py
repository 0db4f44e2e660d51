"""The default method on fourteen more targets, with one set of defaults: the table of the README.

Twelve objects from all six groups and two styles. Each is forgotten, timed from a loaded
model to a saved edit, and evaluated. Resumes: targets already in the output are kept. Where other work
goes on meanwhile, ``--retime`` takes the seconds again when it is done.

Example:
    python benchmarks/forget_concepts.py --output benchmarks/results/forget_concepts.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import write_json

import aizheimer
from aizheimer.api import load_model
from aizheimer.backbones.base import Backbone
from aizheimer.edits.edit import Edit

TARGETS = (
    "Santa Claus",
    "cat",
    "penguin",
    "pizza",
    "red apple",
    "princess",
    "police officer",
    "rocket",
    "castle",
    "soccer ball",
    "jack-o-lantern",
    "ghost",
    "skull",
    "twemoji",
    "fluent",
)
FIRST_IS_THE_DEMO = 1


def forgotten(backbone: Backbone, target: str, method: str, folder: Path) -> tuple[Edit, float]:
    """Return the edit, saved in the folder, and the seconds that it took."""
    started = time.perf_counter()
    edit = aizheimer.forget(backbone, target, method=method, out=folder / target.replace(" ", "-"))
    return edit, round(time.perf_counter() - started, 1)


def measure(target: str, method: str, folder: Path) -> dict[str, Any]:
    """Forget one target and evaluate the edit."""
    backbone = load_model("emoji")
    edit, seconds = forgotten(backbone, target, method, folder)
    result = aizheimer.evaluate(backbone, edit)
    metrics = {
        name: {"value": m.value, "original": m.original, "ratio": m.ratio, "interval": list(m.interval), "n": m.n}
        for name in ("ua", "ira", "cra", "near", "far")
        if (m := getattr(result, name)) is not None
    }
    neighbours = [{"label": n.label, "original": n.original, "edited": n.edited} for n in result.neighbours]
    row: dict[str, Any] = {"target": target, "kind": result.kind, "seconds": seconds, **metrics}
    return row | {
        "neighbours": neighbours,
        "no_op": result.no_op,
        "collapse": result.collapse,
        **{key: edit.provenance.extra.get(key) for key in ("residual", "drift", "step")},
        "megabytes": round(edit.size_bytes / 1e6, 2),
    }


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Average every figure over the targets beside the demo's own."""
    rest = rows[FIRST_IS_THE_DEMO:]
    result = {"targets": float(len(rest))}
    if not rest:
        return result
    for name in ("ua", "ira", "cra", "near"):
        known = [r[name] for r in rest if name in r]
        result[name] = statistics.mean(m["value"] for m in known)
        result[f"{name}_original"] = statistics.mean(m["original"] for m in known)
        ratios = [m["ratio"] for m in known if m["ratio"] is not None]  # a target that is always drawn has a UA of 0
        result |= {f"{name}_ratio": statistics.mean(ratios)} if ratios else {}
    seconds = [r["seconds"] for r in rest]
    return result | {"seconds": statistics.mean(seconds), "seconds_median": statistics.median(seconds)}


def main() -> None:
    """Measure every target that the output does not hold yet, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/forget_concepts.json"))
    parser.add_argument("--method", default="aizheimer")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--retime", action="store_true", help="only take the seconds again, of what the output holds")
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    done = {row["target"] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for row in rows if args.retime else []:
            row["seconds"] = forgotten(load_model("emoji"), row["target"], args.method, Path(folder))[1]
            print(f"{row['target']}: {row['seconds']} s", flush=True)
        for target in [] if args.retime else args.targets:
            if target in done:
                continue
            rows.append(measure(target, args.method, Path(folder)))
            write_json(args.output, {"method": args.method, "mean": means(rows), "rows": rows})
            shown = {k: round(rows[-1][k]["value"], 3) for k in ("ua", "ira", "cra", "near") if k in rows[-1]}
            print(f"{target}: {shown} in {rows[-1]['seconds']} s, {rows[-1]['step']} steps", flush=True)
    write_json(args.output, {"method": args.method, "mean": means(rows), "rows": rows})
    print(json.dumps(means(rows), indent=1))


if __name__ == "__main__":
    main()
