"""What a method or an attack is and which parameters it takes, for ``aizheimer show NAME``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from aizheimer.cli import streams
from aizheimer.cli.ls import describe, describe_attack

if TYPE_CHECKING:
    from aizheimer.attacks.base import Attack

WIDTH = 100


def show_method(name: str, *, as_json: bool) -> None:
    """Print what a method or a recipe is: every parameter, its default and where that comes from.

    Args:
        name: A method, with the recipe that ``forget --method`` takes by that name if there is one; or a recipe.
        as_json: Print it as JSON.
    """
    from aizheimer.recipes.load import load_recipe, recipe_notes

    recipe = load_recipe(name)
    entry: dict[str, Any] = dict(describe(type(recipe.method)))
    if notes := recipe_notes(recipe.name):
        entry["recipe"] = f"{recipe.name}: {recipe.description} {notes}"
    fields = with_recipe(type(recipe.method)(), recipe.method)
    _show("method", recipe.method_name, fields, entry=entry, nothing="nothing but the concept", as_json=as_json)


def show_attack(attack: type[Attack], *, as_json: bool) -> None:
    """Print what an attack is, and every parameter with its default."""
    made: Any = attack()
    entry, fields = describe_attack(attack), list(parameters(made))
    _show("attack", attack.name, fields, entry=entry, nothing="nothing but the edited model", as_json=as_json)


def _show(
    kind: str, name: str, fields: list[dict[str, Any]], *, entry: dict[str, Any], nothing: str, as_json: bool
) -> None:
    if as_json:
        streams.print_json({kind: name, **entry, "parameters": fields})
        return
    streams.print_result(f"{name}: {entry['summary']}")
    hidden = {"summary", "needs", "recipe", "kind_in_words"}
    told = {key: entry.get(f"{key}_in_words", value) for key, value in entry.items() if key not in hidden}
    streams.print_result(streams.pairs(told | {"needs": " and ".join(entry["needs"]) or nothing}))
    if "recipe" in entry:
        streams.print_result("recipe")
        _paragraph(entry["recipe"], indent="  ")
    streams.print_result("parameters")
    for field in fields:
        streams.print_result(f"  {field['name']}={_values(field)}")
        _paragraph(field["description"], indent="      ")


def _paragraph(text: str, *, indent: str) -> None:
    for line in textwrap.wrap(text, WIDTH):
        streams.print_result(indent + line)


def _values(field: dict[str, Any]) -> str:
    """Return what is used, and the method's own default beside it where a recipe says otherwise."""
    own = json.dumps(field["default"], ensure_ascii=False)
    if "recipe" not in field:
        return own
    return f"{json.dumps(field['recipe'], ensure_ascii=False)} (the method's own default: {own})"


def with_recipe(own: BaseModel, used: BaseModel) -> list[dict[str, Any]]:
    """Return every parameter; those that a recipe sets otherwise have its value under ``recipe``.

    Args:
        own: The method at its defaults.
        used: The recipe's.
    """
    defaults = {field["name"]: field for field in parameters(own)}
    fields = []
    for field in parameters(used):
        value, name = field["default"], field["name"]
        default = defaults[name]["default"] if name in defaults else None  # of a group that is off by default
        fields.append({**field, "default": default} | ({} if value == default else {"recipe": value}))
    return fields


def parameters(method: BaseModel, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield name, default (as JSON) and description of every parameter, nested ones dotted.

    Args:
        method: The method, or a group of its parameters, at its defaults: a group's are those of this method.
        prefix: What names begin with.

    Example:
        >>> from aizheimer.engine.settings import TrainSettings
        >>> next(parameters(TrainSettings()))["name"]
        'steps'
    """
    for name, info in type(method).model_fields.items():
        default = getattr(method, name)
        if isinstance(default, BaseModel):
            yield from parameters(default, f"{prefix}{name}.")
        else:
            yield {"name": prefix + name, "default": default, "description": info.description or ""}
