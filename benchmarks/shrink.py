"""How small an edit can be made that still meets a demand: ranks and layers, by ``aizheimer shrink``.

For every method and target: the edit, the search, and what of it is left, with the figures before and after on pictures
that the search has not seen. An edit that misses the demand itself says so.

Resumes: edits are kept, pictures of a search come from the cache, and what the output holds already is not made again.

Example:
    python benchmarks/shrink.py --methods aizheimer esd --targets cat
    python benchmarks/shrink.py --page docs/smaller.md
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from measuring import write_json
from methods import folder_of
from methods_table import write_between

import aizheimer
from aizheimer.api import load_model
from aizheimer.errors import AizheimerError
from aizheimer.recipes.load import load_recipe
from aizheimer.tuning.record import ShrinkRecord
from aizheimer.tuning.shrink import shrink

METHODS = ("aizheimer", "esd")
TARGETS = ("cat", "Santa Claus")
REQUIRE = ("UA>=0.95", "IRA drop<=0.03")
MEGABYTE = 1e6
HALF_PRECISION = 2
"""Bytes of a number in a LoRA file."""
Row = dict[str, Any]


def row(method: str, target: str, *, edits: Path, require: list[str], samples: int) -> Row:
    """Forget, search, and say what is left; what cannot be done says why."""
    made: Row = {"method": method, "target": target, "require": require, "samples": samples}
    place = folder_of(edits, method, target)
    started = time.perf_counter()
    try:
        if not (place / "edit.json").exists():
            recipe = load_recipe(method, [])
            aizheimer.forget(load_model("emoji"), target, method=recipe, out=place, overwrite=place.exists())
        small = place.with_name(f"{place.name}-small")
        found = shrink(place, require=require, out=small, samples=samples, overwrite=small.exists()).record
    except AizheimerError as error:
        return {**made, "error": str(error)}
    return {**made, **_left(found), "seconds": round(time.perf_counter() - started, 1)}


def _left(found: ShrinkRecord) -> Row:
    chosen = found.chosen
    kept = ("ua", "ira", "cra", "near")
    return {
        "numbers": {"before": found.numbers, "after": chosen.numbers},
        "layers": {"before": found.layers, "after": found.layers - len(chosen.dropped)},
        "rank": chosen.rank,
        "tried": len(found.trials),
        "before": {name: found.before[name] for name in kept if name in found.before},
        "after": {name: chosen.values[name] for name in kept if name in chosen.values},
    }


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| edit | numbers | MB, in half precision | rank | layers | UA | IRA | nearest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in rows:
        name = f"{one['method']}, {one['target']}"
        if "error" in one:
            lines.append(f"| {name} | {one['error']} |  |  |  |  |  |  |")
            continue
        numbers = [one["numbers"][when] for when in ("before", "after")]
        cells = [
            " → ".join(f"{count:,}" for count in numbers),
            " → ".join(f"{count * HALF_PRECISION / MEGABYTE:.3f}" for count in numbers),
            "whole" if one["rank"] is None else str(one["rank"]),
            f"{one['layers']['before']} → {one['layers']['after']}",
            *(
                " → ".join(f"{100 * one[when][key]:.0f} %" for when in ("before", "after"))
                for key in ("ua", "ira", "near")
            ),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    asked = " and ".join(f"`{text}`" for text in rows[0]["require"])
    return "\n".join(lines) + f"\n\nAsked for: {asked}; figures on pictures that the search has not seen."


def main(arguments: list[str] | None = None) -> None:
    """Make what the output does not hold, write it after every row, and the page if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/shrink.json"))
    parser.add_argument("--edits", type=Path, default=Path("build/shrink-edits"), help="where edits go")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--require", nargs="*", default=list(REQUIRE))
    parser.add_argument("--samples", type=int, default=60, help="pictures that decide on a part")
    parser.add_argument("--page", type=Path, help="write the table between its marks 'shrink' in this page")
    args = parser.parse_args(arguments)
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    done = {(one["method"], one["target"]) for one in rows}
    for method, target in [(m, t) for m in args.methods for t in args.targets if (m, t) not in done]:
        rows.append(row(method, target, edits=args.edits, require=args.require, samples=args.samples))
        write_json(args.output, {"rows": rows})
        print(json.dumps(rows[-1]), flush=True)
    if args.page is not None and rows:
        write_between(args.page, "shrink", table(rows))


if __name__ == "__main__":
    main()
