"""Every attack, by its own defaults, on edits of some methods: what it brings back, and what it reaches where it must.

Resumes: what the output holds is not attacked again.

Example:
    python benchmarks/attacks.py --precision bfloat16 --pages docs/attacks
    python benchmarks/attacks.py --attacks relearn quantise --methods aizheimer --targets cat
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from measuring import Bench, write_json
from methods_table import write_between

import aizheimer
from aizheimer._registry import ATTACKS
from aizheimer.api import load_model
from aizheimer.attacks.base import AttackSettings, NotApplicable
from aizheimer.attacks.load import load_attack
from aizheimer.attacks.run import judge_for, run_attack
from aizheimer.edits.edit import Edit
from aizheimer.errors import InputError

METHODS = ("aizheimer", "esd", "uce")
TARGETS = ("cat", "Santa Claus")
RATES = ("before", "asr", "unedited", "neighbour", "random")
WEAK = 0.5
"""A mean rate on the unedited model below which an attack's failure proves nothing."""
Row = dict[str, Any]


def attack(bench: Bench, name: str, edit: Edit, settings: AttackSettings) -> Row:
    """Attack an edit and return the rates; an attack that means nothing for it is recorded with its reason."""
    concept = edit.provenance.concept.to_concept()
    judge = judge_for(concept, object_judge=bench.judges.object, style_judge=bench.judges.style)
    row: Row = {"attack": name, "method": edit.provenance.method, "target": concept.target}
    try:
        found = run_attack(
            load_attack(name), backbone=bench.plain, edit=edit, concept=concept, judge=judge, settings=settings
        ).result
    except NotApplicable as error:
        return row | {"refused": str(error)}
    for rate in RATES:
        if (value := getattr(found, rate)) is not None:
            row[rate] = {"value": value.value, "interval": list(value.interval), "n": value.n}
    row |= {"parameters": found.parameters, "spent": found.spent.model_dump(mode="json"), "warnings": found.warnings}
    return row | {key: found.details[key] for key in ("steps_to_recover",) if key in found.details}


def table(rows: list[Row]) -> str:
    """Return an attack's rows as Markdown, in percent of pictures."""
    lines = [
        "| method, target | before | ASR | unedited | neighbour | random | steps | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        name = f"{row['method']}, {row['target']}"
        if "refused" in row:
            lines.append(f"| {name} | {row['refused']} |  |  |  |  |  |  |")
            continue
        rates = [f"{100 * row[rate]['value']:.0f} %" if rate in row else "" for rate in RATES]
        steps = row["spent"]["steps"] or ""
        if row.get("steps_to_recover"):
            steps = f"{row['steps_to_recover']} of {steps}"
        lines.append(f"| {name} | {' | '.join(rates)} | {steps} | {row['spent']['seconds']:.0f} |")
    return "\n".join(lines)


def write_pages(folder: Path, rows: list[Row]) -> None:
    """Write every attack's rows into its page."""
    for name in dict.fromkeys(row["attack"] for row in rows):
        own = [row for row in rows if row["attack"] == name]
        n = next((row["asr"]["n"] for row in own if "asr" in row), 0)
        text = (
            f"On the embedded model, by its defaults, {n} pictures each "
            "(`python benchmarks/attacks.py --precision bfloat16 --pages docs/attacks`, raw "
            "`benchmarks/results/attacks.json`); [how to read the rates](index.md#reading-the-rates). Seconds are of "
            f"one thread beside other work, with pauses in some: no more than an order of size.\n\n{table(own)}"
        )
        reached = [row["unedited"]["value"] for row in own if "unedited" in row]
        if reached and sum(reached) / len(reached) < WEAK:
            text += (
                "\n\nBy its defaults it reaches too little of the unedited model here: that it fails on an edit says "
                "nothing of the edit. Give it more steps, or another attack."
            )
        page = folder / f"{name}.md"
        write_between(page, "measured", text)


def main() -> None:
    """Attack what the output does not hold, then write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", default=ATTACKS.names())
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--images", type=int, default=10, help="pictures that decide on an attack")
    parser.add_argument("--precision", choices=("model", "bfloat16"), default="model", help="to draw in")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/attacks.json"))
    parser.add_argument("--pages", type=Path, help="write each attack's rows into its page in this folder")
    args = parser.parse_args()
    settings = AttackSettings(images=args.images, precision=args.precision)
    content: Row = {"settings": settings.model_dump(mode="json"), "rows": []}
    if args.output.exists():
        content = json.loads(args.output.read_text())
        if content["settings"] != settings.model_dump(mode="json"):
            parser.error(f"{args.output} was drawn otherwise ({content['settings']}); give another --output")
    bench = Bench(compiled=False)
    done = {(row["attack"], row["method"], row["target"]) for row in content["rows"]}
    for method in args.methods:
        for target in args.targets:
            wanted = [name for name in args.attacks if (name, method, target) not in done]
            edit = aizheimer.forget(load_model("emoji"), target, method=method) if wanted else None
            for name in wanted:
                assert edit is not None
                try:
                    row = attack(bench, name, edit, settings)
                except InputError as error:
                    row = {"attack": name, "method": method, "target": target, "refused": str(error)}
                content["rows"].append(row)
                write_json(args.output, content)
                print(json.dumps({key: row.get(key) for key in ("attack", "method", "target", *RATES)}), flush=True)
    if args.pages:
        write_pages(args.pages, content["rows"])


if __name__ == "__main__":
    main()
