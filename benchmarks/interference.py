"""Edits in company: what each forgets alone and among 5, 20 and 100, and what the rest of the model pays.

Each of the first 20 targets (``--alone``) is forgotten alone by each method. Then the first 5, 20 and 100 are forgotten
together, in three ways: the edits added (``stack``), each made on the model that the earlier ones left (``onto``), and
all in one run by a method that takes several (``together``). Measured are, of each target, the share of its pictures no
longer judged to be it (UA) alone and in company; and the share of pictures of other objects, none of them one of the
100, still judged right, beside the unedited model's on the same prompts and seeds. Of the edits alone, the matrix of
what each does to every other target.

A method is the name of a method or recipe, with overrides. Resumes: edits are kept in a folder, and what the output
holds already is not measured again.

Example:
    python benchmarks/interference.py --methods closed-distraction uce --output benchmarks/results/interference.json
    python benchmarks/interference.py --companies 5 20 100 --ways stack together
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import SETTINGS, Bench, write_json
from methods import folder_of

import aizheimer
from aizheimer import api
from aizheimer.api import load_model
from aizheimer.api.several import takes_several
from aizheimer.edits.compose import stack
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.errors import AizheimerError, RecipeError
from aizheimer.evaluation.interference import Share, retained_labels
from aizheimer.recipes.load import Recipe, load_recipe

TARGETS = (
    *("Santa Claus", "cat", "pizza", "rocket", "castle"),
    *("penguin", "red apple", "police officer", "soccer ball", "ghost"),
    *("princess", "jack-o-lantern", "skull", "fox", "banana"),
    *("tiger", "bicycle", "umbrella", "cactus", "octopus"),
)
"""Objects, animals, people and things, the first of them those of the companies of one and of five."""
ALONE, MOST = 20, 100
"""Targets that are also measured alone, and targets in all."""
COMPANIES = (5, 20)
WAYS = ("stack", "onto", "together")
TARGET_SEEDS, RETAIN_LABELS, MATRIX_SEEDS = 2, 60, 1


def targets_of(bench: Bench) -> list[str]:
    """Return the targets: those above that the model draws, then others at random, but always the same."""
    known = {item.label for item in bench.plain.world.vocabulary}
    found = [target for target in TARGETS if target in known]
    more = [item.label for item in bench.plain.world.vocabulary if item.label not in found]
    order = np.random.default_rng(0).permutation(len(more))
    return (found + [more[i] for i in order])[:MOST]


def forget_alone(method: str, target: str, folder: Path) -> Edit:
    """Forget one target on the unedited model, or find that done."""
    place = folder_of(folder, method, "alone") / target.replace(" ", "-")
    if (place / "edit.json").exists():
        return load_edit(place)
    return aizheimer.forget(load_model("emoji"), target, method=recipe(method), out=place, overwrite=place.exists())


def recipe(method: str) -> Recipe:
    """Return a recipe by its name and overrides."""
    name, *overrides = method.split()
    return load_recipe(name, overrides)


def forget_onto(method: str, targets: Sequence[str], folder: Path) -> Edit:
    """Forget targets one after the other, each on what the earlier ones left; every step is kept."""
    total = forget_alone(method, targets[0], folder)
    for number, target in enumerate(targets[1:], 2):
        place = folder_of(folder, method, "onto") / f"{number:02}-{target.replace(' ', '-')}"
        if (place / "edit.json").exists() and len(load_edit(place).provenance.extra.get("stack", ())) == number:
            total = load_edit(place)
            continue
        total = api.forget_onto(
            load_model("emoji"), target, earlier=total, method=recipe(method), out=place, overwrite=place.exists()
        )
    return total


def forget_together(method: str, targets: Sequence[str], folder: Path) -> Edit:
    """Forget targets in one run.

    Raises:
        RecipeError: If the method does not take several.
    """
    chosen = recipe(method)
    if not takes_several(chosen.method):
        raise RecipeError(f"{method} does not take several concepts in one run")
    place = folder_of(folder, method, "together") / f"{len(targets):03}"
    if (place / "edit.json").exists():
        return load_edit(place)
    done = api.forget_several(load_model("emoji"), targets, method=chosen, out=place, overwrite=place.exists())
    return done.edit


def forget_in_company(way: str, method: str, targets: Sequence[str], folder: Path) -> Edit:
    """Forget targets in one of the `WAYS`."""
    if way == "stack":
        return stack(*(forget_alone(method, target, folder) for target in targets))
    return {"onto": forget_onto, "together": forget_together}[way](method, targets, folder)


class Measure:
    """What a judge sees of targets and of the others, with an edit and without."""

    def __init__(self, bench: Bench, targets: Sequence[str]) -> None:
        self.bench, self.targets = bench, list(targets)
        self.retained = retained_labels(bench.plain.world, targets, RETAIN_LABELS)
        self.original = self._share(self.right(None, self.retained, seeds=1))

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
        edited = self._share(self.right(edit, self.retained, seeds=1))
        return {
            "ua": {target: 1 - Share.of(hits).value for target, hits in own.items()},
            "retained": edited.value,
            "retained_interval": list(edited.interval),
            "retained_original": self.original.value,
            "pictures": edited.n,
        }

    @staticmethod
    def _share(found: dict[str, list[bool]]) -> Share:
        return Share.of([hit for hits in found.values() for hit in hits])

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


def run_method(method: str, measure: Measure, content: dict[str, Any], args: argparse.Namespace) -> None:
    """Measure what is not in the output yet, and write it after every row."""
    alone = measure.targets[: args.alone]
    matrix = content["matrix"].setdefault(method, {})
    for target in alone:
        key = f"{method} / alone / {target}"
        if key in content["rows"] and target in matrix:
            continue
        try:
            edit = forget_alone(method, target, args.edits)
            content["rows"][key], matrix[target] = measure.row(edit, [target]), measure.damage(edit, alone)
        except AizheimerError as error:
            content["rows"][key], matrix[target] = {"error": str(error)}, {}
        tell(key, content, args.output)
    for size, way in itertools.product(args.companies, args.ways):
        key = f"{method} / {way} / {size}"
        if key in content["rows"]:
            continue
        company = measure.targets[:size]
        started = time.perf_counter()
        try:
            edit = forget_in_company(way, method, company, args.edits)
            seconds = round(time.perf_counter() - started, 1)
            content["rows"][key] = {**measure.row(edit, company), "seconds": seconds}
        except AizheimerError as error:
            content["rows"][key] = {"error": str(error)}
        tell(key, content, args.output)


def tell(key: str, content: dict[str, Any], output: Path) -> None:
    """Write everything, and print one row."""
    write_json(output, content)
    print(summary({key: content["rows"][key]})[0], flush=True)


def main() -> None:
    """Measure every method's edits alone and in company."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["closed-distraction", "uce", "speed", "mace"])
    parser.add_argument("--companies", nargs="+", type=int, default=list(COMPANIES), choices=range(2, MOST + 1),
                        metavar="N", help=f"of the first N targets, at most {MOST}")  # fmt: skip
    parser.add_argument("--alone", type=int, default=ALONE, help="how many are also measured alone")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--edits", type=Path, default=Path("build/interference-edits"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/interference.json"))
    parser.add_argument("--steps", type=int, default=8, help="DDIM steps of every picture")
    args = parser.parse_args()
    settings = SETTINGS.model_copy(update={"steps": args.steps, "precision": "bfloat16"})
    bench = Bench(compiled=False, settings=settings)
    measure = Measure(bench, targets_of(bench))
    content: dict[str, Any] = {"rows": {}, "matrix": {}}
    if args.output.exists():
        content = json.loads(args.output.read_text(encoding="utf-8"))
    content |= {"settings": settings.model_dump(mode="json"), "targets": measure.targets, "retained": measure.retained}
    for method in args.methods:
        run_method(method, measure, content, args)
    print("\n".join(summary(content["rows"])))


if __name__ == "__main__":
    main()
