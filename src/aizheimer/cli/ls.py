"""``aizheimer ls``: what there is to choose from."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aizheimer.cli import streams
from aizheimer.cli.matrix import print_matrix
from aizheimer.cli.options import Debug, Json

if TYPE_CHECKING:
    from aizheimer.attacks.base import Attack
    from aizheimer.methods.base import Method


class Kind(StrEnum):
    """What can be listed."""

    ALL = "all"
    METHODS = "methods"
    RECIPES = "recipes"
    ATTACKS = "attacks"
    SUITES = "suites"


def ls(
    what: Annotated[
        Kind, typer.Argument(metavar="[methods|recipes|attacks|suites]", help="Only one of the lists.")
    ] = Kind.ALL,
    *,
    matrix: Annotated[bool, typer.Option("--matrix", help="Which method works on which family of models.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List methods, recipes, attacks and suites: what each does and needs, and how far it has been tested."""
    del debug
    if matrix:
        print_matrix(as_json=as_json)
        return
    from aizheimer._registry import ATTACKS, METHODS
    from aizheimer.recipes.load import list_recipes

    found: dict[str, dict[str, Any]] = {}
    if what in {Kind.ALL, Kind.METHODS}:
        found["methods"] = {name: describe(METHODS.get(name)) for name in METHODS}
    if what in {Kind.ALL, Kind.RECIPES}:
        found["recipes"] = list_recipes()
    if what in {Kind.ALL, Kind.ATTACKS}:
        found["attacks"] = {name: describe_attack(ATTACKS.get(name)) for name in ATTACKS}
    if what in {Kind.ALL, Kind.SUITES}:
        from aizheimer.evaluation.suite_file import list_suites

        found["suites"] = list_suites()
    if as_json:
        streams.print_json(found)
        return
    for title, entries in found.items():
        streams.print_result(title)
        if title == "methods":
            _print_methods(entries)
        elif title == "attacks":
            _print_attacks(entries)
        else:
            streams.print_result(streams.pairs(entries))


def describe(method: type[Method]) -> dict[str, Any]:
    """Return what a method says of itself: its line, paper, kind, needs, edits and status."""
    info = method.info
    return {
        "summary": first_line(method),
        "kind": info.kind,
        "kind_in_words": info.kind_in_words,
        "needs": list(info.needs),
        "edits": info.edits,
        "status": info.status,
        "paper": info.paper,
    }


def describe_attack(attack: type[Attack]) -> dict[str, Any]:
    """Return what an attack says of itself: its line, paper, access, what it changes, needs and works on."""
    info = attack.info
    told = {"access": info.access, "changes": info.changes, "needs": list(info.needs), "paper": info.paper}
    told["works on"] = info.works_on
    return {"summary": first_line(attack), **told}


def first_line(method: type) -> str:
    """Return the first line of what a class says of itself."""
    lines = (method.__doc__ or "").strip().splitlines()
    return lines[0] if lines else ""


def _print_methods(entries: dict[str, dict[str, Any]]) -> None:
    """Print a line for each method, and below it what it is and where it comes from."""
    for name, entry in entries.items():
        needs = f", needs {' and '.join(entry['needs'])}" if entry["needs"] else ""
        streams.print_result(f"  {name}  {entry['summary']}")
        streams.print_result(f"      {entry['kind_in_words']}, edits {entry['edits']}{needs}; {entry['status']}")
        streams.print_result(f"      {entry['paper']}")


def _print_attacks(entries: dict[str, dict[str, Any]]) -> None:
    """Print a line for each attack, and below it what it takes and where it comes from."""
    for name, entry in entries.items():
        needs = f", needs {' and '.join(entry['needs'])}" if entry["needs"] else ""
        streams.print_result(f"  {name}  {entry['summary']}")
        streams.print_result(f"      {entry['access']}, changes {entry['changes']}{needs}")
        streams.print_result(f"      {entry['paper']}")
