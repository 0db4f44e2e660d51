"""The default method with one part taken away, changed or added at a time: what each of them pays.

On the tuning targets, two objects and two styles, which are in no table of results. Resumes: what the output holds is
not measured again.

Example:
    python benchmarks/ablation.py --table docs/methods/aizheimer.md
    python benchmarks/ablation.py --variants "the default" "queries, residual 0.2" --output metric.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from measuring import Bench, write_json
from methods_table import write_between
from tune import attempt

from aizheimer.evaluation.settings import EvaluationSettings

TARGETS = ("penguin", "princess", "noto", "blob")
VARIANTS = {
    "the default": "",
    "only the concept's own rows": 'start.rows=["concept"]',
    "only the last row and what follows": 'start.rows=["last..end"]',
    "bare words only": "start.prompts=bare",
    "templates only": "start.prompts=templates",
    "answer: the empty prompt": 'start.empty_anchor="null"',
    "answer: the prompt without the words": "start.empty_anchor=template",
    "no everyday prompts held": "start.prior=0",
    "no neighbours or others held": "start.preserve=0",
    "keys only": 'parts=["k"]',
    "values only": 'parts=["v"]',
    "first and last layer left out": "layers=skip_ends",
    "values in the null space, tolerance 0.01": "start.values=null-space",
    "values in the null space, tolerance 0.03": "start.values=null-space start.tolerance=0.03",
    "values in the null space, tolerance 0.1": "start.values=null-space start.tolerance=0.1",
    "its synonyms' rows as well": "start.synonyms=null",
    "keys measured by the image's queries": "start.metric=queries",
    "queries, residual 0.2": "start.metric=queries start.residual=0.2",
    "residual 0.3": "start.residual=0.3",
    "residual 0.15": "start.residual=0.15",
    "residual 0.07": "start.residual=0.07",
    "one round of rows that undo it": "start.rounds=1",
    "three rounds": "start.rounds=3",
    "queries, and one round": "start.metric=queries start.rounds=1",
    "trained on afterwards": "enough=0",
    "training alone, no closed form": "start=null enough=null",
}
"""What is tried, and the overrides that make it."""
FIGURES = ("ua", "synonyms", "ira", "near", "cra")


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each variant: means over its targets, retained shares as part of the unedited model's."""
    found = []
    for variant in dict.fromkeys([*VARIANTS, *(row["variant"] for row in rows)]):
        own = [row for row in rows if row["variant"] == variant and "error" not in row]
        if not own:
            continue
        line: dict[str, Any] = {"variant": variant, "targets": len(own)}
        for name in FIGURES:
            values = [row[name] for row in own if row.get(name) is not None]
            line[name] = statistics.mean(values) if values else None
            if name in FIGURES[2:] and values:
                line[name] /= statistics.mean(row[f"{name}_original"] for row in own)
        line["seconds"] = statistics.median(row["seconds"] for row in own)
        found.append(line)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the summary as Markdown."""
    lines = [
        "| variant | UA | by synonyms | IRA kept | nearest kept | CRA kept | seconds |",
        "| --- |" + " ---: |" * 6,
    ]
    for row in rows:
        figures = ["" if row[name] is None else f"{100 * row[name]:.0f} %" for name in FIGURES]
        lines.append(f"| {' | '.join([row['variant'], *figures, format(row['seconds'], '.1f')])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what the output does not hold, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ablation.json"))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--samples", type=int, default=45, help="pictures an edit is judged by, beside the synonyms'")
    parser.add_argument("--precision", choices=("model", "bfloat16"), default="model", help="to draw in")
    parser.add_argument("--table", type=Path, help="write the table between the marks of this page")
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    bench = Bench(settings=EvaluationSettings.sized(args.samples, precision=args.precision))
    for variant in args.variants:
        for target in args.targets:
            if any((row["variant"], row["target"]) == (variant, target) for row in rows):
                continue
            row = attempt(bench, "aizheimer", VARIANTS[variant].split(), target)
            rows.append({"variant": variant, "overrides": VARIANTS[variant], "target": target, **row})
            write_json(args.output, {"samples": args.samples, "precision": args.precision, "rows": rows})
            print(rows[-1], flush=True)
    print(table(summary(rows)))
    if args.table:
        write_between(args.table, "ablation", table(summary(rows)))


if __name__ == "__main__":
    main()
