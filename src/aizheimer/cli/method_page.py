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
    from aizheimer.methods.base import Method

WIDTH = 100


def show_method(method: type[Method], *, as_json: bool) -> None:
    """Print what a method is, and every parameter with its default and where that comes from."""
    _show("method", method, entry=describe(method), nothing="nothing but the concept", as_json=as_json)


def show_attack(attack: type[Attack], *, as_json: bool) -> None:
    """Print what an attack is, and every parameter with its default."""
    _show("attack", attack, entry=describe_attack(attack), nothing="nothing but the edited model", as_json=as_json)


def _show(kind: str, of: Any, *, entry: dict[str, Any], nothing: str, as_json: bool) -> None:
    fields = list(parameters(of()))
    if as_json:
        streams.print_json({kind: of.name, **entry, "parameters": fields})
        return
    streams.print_result(f"{of.name}: {entry['summary']}")
    told = {key: value for key, value in entry.items() if key not in {"summary", "needs"}}
    streams.print_result(streams.pairs(told | {"needs": " and ".join(entry["needs"]) or nothing}))
    streams.print_result("parameters")
    for field in fields:
        streams.print_result(f"  {field['name']}={json.dumps(field['default'], ensure_ascii=False)}")
        for line in textwrap.wrap(field["description"], WIDTH):
            streams.print_result(f"      {line}")


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
