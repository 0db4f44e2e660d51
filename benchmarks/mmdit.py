"""Forgetting on emoji-mmdit, the second embedded model, by every kind of method that is defined on joint attention.

Takes over what ``aizheimer bench benchmarks/mmdit/plan.yaml`` measured, keeps it as one JSON file, and writes the table
of the page on models. A method forgets for real here if UA is at least 0.8 and IRA at least 0.9 of the unedited
model's, as means over the targets.

Example:
    aizheimer bench benchmarks/mmdit/plan.yaml --out build/mmdit
    python benchmarks/mmdit.py --bench build/mmdit
    python benchmarks/mmdit.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measuring import bench_rows, write_json
from methods_table import percent, write_between

from aizheimer.recipes.load import load_recipe

Row = dict[str, Any]
UA, IRA = 0.8, 0.9
"""What forgetting for real is: UA at least, and IRA at least as a share of the unedited model's."""
COLUMNS = (
    "method", "recipe", "concept", "seed", "status", "error", "edit", "seconds_forget", "megabytes",
    *(f"{name}{part}" for name in ("ua", "ira", "cra", "near") for part in ("", ".low", ".high", ".original", ".n")),
)  # fmt: skip
"""Of a bench's rows, those that are kept."""
KEPT = ("ira", "cra", "near")


def summary(rows: list[Row]) -> list[Row]:
    """Return each method's means over its targets, those that forget for real first, then by what they keep."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method and row["status"] == "done"]
        failed = sum(row["method"] == method for row in rows) - len(own)
        line: Row = {"method": method, "done": len(own), "failed": failed, "real": False}
        if own:
            kept = {name: _mean(row[name] / row[f"{name}.original"] for row in own) for name in KEPT}
            line |= {"ua": _mean(row["ua"] for row in own), "worst": min(own, key=lambda row: row["ua"]), **kept}
            line["seconds"] = _mean(row["seconds_forget"] for row in own)
            line["real"] = line["ua"] >= UA and line["ira"] >= IRA
        found.append(line)
    return sorted(found, key=lambda line: (not line["real"], -min(line.get("ua", 0.0), line.get("ira", 0.0))))


def table(rows: list[Row]) -> str:
    """Return the means as Markdown."""
    heads = "| method | UA | the least UA | IRA kept | CRA kept | nearest kept | seconds | for real |"
    lines = [heads, "| --- | ---: | --- | ---: | ---: | ---: | ---: | --- |"]
    found = summary(rows)
    for line in found:
        name = f"[{line['method']}](methods/{load_recipe(line['method']).method_name}.md)"
        if not line["done"]:
            lines.append(f"| {name} | failed | | | | | | no |")
            continue
        worst = f"{line['worst']['concept']}, {percent(line['worst']['ua'])}"
        cells = [percent(line["ua"]), worst, *(percent(line[key]) for key in KEPT), f"{line['seconds']:.3g}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {'yes' if line['real'] else 'no'} |")
    targets = list(dict.fromkeys(row["concept"] for row in rows))
    real = sum(line["real"] for line in found)
    lines.append(
        f"\nMeans over {', '.join(targets)}; kept: as a share of the unedited model's own accuracy. For real: UA at "
        f"least {percent(UA)} and IRA at least {percent(IRA)} of the unedited model's, which {real} of {len(found)} "
        "methods reach."
    )
    return "\n".join(lines)


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def main(arguments: list[str] | None = None) -> None:
    """Take over a bench's rows if one is given, and write the page's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/mmdit.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/models.md"))
    parser.add_argument("--bench", type=Path, help="folder of the bench by mmdit/plan.yaml")
    args = parser.parse_args(arguments)
    if args.bench is not None:
        write_json(args.output, {"rows": bench_rows(args.bench, COLUMNS)})
    written = table(json.loads(args.output.read_text(encoding="utf-8"))["rows"])
    write_between(args.page, "mmdit", written)
    print(written)


if __name__ == "__main__":
    main()
