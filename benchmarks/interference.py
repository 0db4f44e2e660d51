"""Edits in company: what each forgets alone and among 5 and 20, and what the rest of the model pays.

Every target is forgotten alone by each method. Then the first 1, 5 and 20 are forgotten together, in two ways: the
edits added (``stack``), and each made on the model that the earlier ones left (``onto``). Measured are, of each target,
the share of its pictures no longer judged to be it (UA) alone and in company; and the share of pictures of other
objects, none of them a target, still judged right, beside the unedited model's on the same prompts and seeds. Of the
edits alone, the matrix of what each does to every other target.

Resumes: edits are kept in a folder, and what the output holds already is not measured again.

Example:
    python benchmarks/interference.py --methods closed-distraction uce --output benchmarks/results/interference.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Bench, write_json

import aizheimer
from aizheimer import api
from aizheimer.api import load_model
from aizheimer.edits.compose import stack
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.errors import AizheimerError
from aizheimer.evaluation.interference import Share, retained_labels

TARGETS = (
    *("Santa Claus", "cat", "pizza", "rocket", "castle"),
    *("penguin", "red apple", "police officer", "soccer ball", "ghost"),
    *("princess", "jack-o-lantern", "skull", "fox", "banana"),
    *("tiger", "bicycle", "umbrella", "cactus", "octopus"),
)
"""Objects, animals, people and things, the first of them those of the companies of one and of five."""
COMPANIES = (1, 5, 20)
WAYS = ("stack", "onto")
TARGET_SEEDS, RETAIN_LABELS, MATRIX_SEEDS = 2, 60, 1


def targets_of(bench: Bench) -> list[str]:
    """Return the targets that the model draws, or stop if there are too few for the largest company."""
    known = {item.label for item in bench.plain.world.vocabulary}
    found = [target for target in TARGETS if target in known]
    more = [item.label for item in bench.plain.world.vocabulary if item.label not in found]
    order = np.random.default_rng(0).permutation(len(more))
    return (found + [more[i] for i in order])[: max(COMPANIES)]


def forget_alone(method: str, target: str, folder: Path) -> Edit:
    """Forget one target on the unedited model, or find that done."""
    place = folder / method / "alone" / target.replace(" ", "-")
    if (place / "edit.json").exists():
        return load_edit(place)
    return aizheimer.forget(load_model("emoji"), target, method=method, out=place, overwrite=place.exists())


def forget_onto(method: str, targets: Sequence[str], folder: Path) -> Edit:
    """Forget targets one after the other, each on what the earlier ones left; every step is kept."""
    total = forget_alone(method, targets[0], folder)
    for number, target in enumerate(targets[1:], 2):
        place = folder / method / "onto" / f"{number:02}-{target.replace(' ', '-')}"
        if (place / "edit.json").exists() and len(load_edit(place).provenance.extra.get("stack", ())) == number:
            total = load_edit(place)
            continue
        total = api.forget_onto(
            load_model("emoji"), target, earlier=total, method=method, out=place, overwrite=place.exists()
        )
    return total


class Measure:
    """What a judge sees of targets and of the others, with an edit and without."""

    def __init__(self, bench: Bench, targets: Sequence[str]) -> None:
        self.bench, self.targets = bench, list(targets)
        self.retained = retained_labels(bench.plain.world, targets, RETAIN_LABELS)

    def right(self, edit: Edit | None, labels: Sequence[str], *, seeds: int) -> dict[str, list[bool]]:
        """Return, by label, which of its pictures are judged to show it."""
        if edit is None:
            return self.bench.right(self.bench.fast, labels, seeds=seeds)
        backbone = self.bench.backbone_for(edit)
        with edit.applied(backbone.pipe):
            return self.bench.right(backbone, labels, seeds=seeds)

    def row(self, edit: Edit, targets: Sequence[str]) -> dict[str, Any]:
        """Return UA of each target and the retained objects' accuracy, edited and unedited."""
        own = self.right(edit, targets, seeds=TARGET_SEEDS)
        kept, plain = (self.right(one, self.retained, seeds=1) for one in (edit, None))
        edited, original = (Share.of([hit for hits in one.values() for hit in hits]) for one in (kept, plain))
        return {
            "ua": {target: 1 - Share.of(hits).value for target, hits in own.items()},
            "retained": edited.value,
            "retained_interval": list(edited.interval),
            "retained_original": original.value,
            "pictures": edited.n,
        }

    def damage(self, edit: Edit, labels: Sequence[str]) -> dict[str, float]:
        """Return, by label, the share of pictures judged right: a line of the matrix."""
        return {name: Share.of(hits).value for name, hits in self.right(edit, labels, seeds=MATRIX_SEEDS).items()}


def summary(rows: dict[str, Any]) -> list[str]:
    """Return a line for each company."""
    lines = []
    for key, row in rows.items():
        if "error" in row:
            lines.append(f"{key}: {row['error']}")
            continue
        ua = list(row["ua"].values())
        share = row["retained"] / row["retained_original"]
        lines.append(f"{key}: UA mean {np.mean(ua):.3f}, least {min(ua):.3f}; retained {share:.3f} of the original")
    return lines


def run_method(method: str, measure: Measure, content: dict[str, Any], *, folder: Path, output: Path) -> None:
    """Measure what is not in the output yet, and write it after every row."""
    targets = measure.targets
    for target in targets:
        matrix = content["matrix"].setdefault(method, {})
        key = f"{method} / alone / {target}"
        if key in content["rows"] and target in matrix:
            continue
        try:
            edit = forget_alone(method, target, folder)
            content["rows"][key], matrix[target] = measure.row(edit, [target]), measure.damage(edit, targets)
        except AizheimerError as error:
            content["rows"][key] = {"error": str(error)}
            matrix[target] = {}
        write_json(output, content)
        print(summary({key: content["rows"][key]})[0], flush=True)
    for size in COMPANIES[1:]:
        for way in WAYS:
            key = f"{method} / {way} / {size}"
            if key in content["rows"]:
                continue
            company = targets[:size]
            try:
                if way == "stack":
                    edit = stack(*(forget_alone(method, target, folder) for target in company))
                else:
                    edit = forget_onto(method, company, folder)
                content["rows"][key] = measure.row(edit, company)
            except AizheimerError as error:
                content["rows"][key] = {"error": str(error)}
            write_json(output, content)
            print(summary({key: content["rows"][key]})[0], flush=True)


def main() -> None:
    """Measure every method's edits alone and in company."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["closed-distraction", "uce", "speed", "mace"])
    parser.add_argument("--edits", type=Path, default=Path("interference-edits"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/interference.json"))
    parser.add_argument("--eager", action="store_true", help="Do not compile the UNet.")
    args = parser.parse_args()
    bench = Bench(compiled=not args.eager)
    measure = Measure(bench, targets_of(bench))
    content: dict[str, Any] = {"rows": {}, "matrix": {}}
    if args.output.exists():
        content = json.loads(args.output.read_text(encoding="utf-8"))
    content |= {"targets": measure.targets, "retained": measure.retained}
    for method in args.methods:
        run_method(method, measure, content, folder=args.edits, output=args.output)
    print("\n".join(summary(content["rows"])))


if __name__ == "__main__":
    main()
