"""``aizheimer ls``: what there is to choose from."""

from __future__ import annotations

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json


def ls(*, as_json: Json = False, debug: Debug = False) -> None:
    """List the methods and the recipes, each with a line on what it is for."""
    del debug
    from aizheimer._registry import METHODS
    from aizheimer.recipes.load import list_recipes

    methods = {name: _first_line(METHODS.get(name)) for name in METHODS}
    recipes = list_recipes()
    if as_json:
        streams.print_json({"methods": methods, "recipes": recipes})
        return
    for title, entries in (("methods", methods), ("recipes", recipes)):
        streams.print_result(title)
        streams.print_result(streams.pairs(entries))


def _first_line(method: type) -> str:
    lines = (method.__doc__ or "").strip().splitlines()
    return lines[0] if lines else ""
