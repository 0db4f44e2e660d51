"""``aizheimer validate``: check a recipe before it costs time."""

from __future__ import annotations

from typing import Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json, Overrides


def validate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name or file.")],
    overrides: Overrides = None,
    *,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a recipe and print it with every parameter filled in; all mistakes are named at once."""
    del debug
    from aizheimer.recipes.load import load_recipe

    resolved = load_recipe(recipe, overrides or ()).resolved()
    if as_json:
        streams.print_json(resolved)
        return
    import yaml

    streams.print_result(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).rstrip())
