"""What a method is and which parameters it takes, for ``aizheimer show METHOD``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from aizheimer.cli import streams
from aizheimer.cli.ls import describe

if TYPE_CHECKING:
    from aizheimer.methods.base import Method

WIDTH = 100


def show_method(method: type[Method], *, as_json: bool) -> None:
    """Print what a method is, and every parameter with its default and where that comes from."""
    fields = list(parameters(method()))  # type: ignore[arg-type]
    entry = describe(method)
    if as_json:
        streams.print_json({"method": method.name, **entry, "parameters": fields})
        return
    streams.print_result(f"{method.name}: {entry['summary']}")
    told = {key: entry[key] for key in ("kind", "edits", "status", "paper")}
    streams.print_result(streams.pairs(told | {"needs": " and ".join(entry["needs"]) or "nothing but the concept"}))
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
