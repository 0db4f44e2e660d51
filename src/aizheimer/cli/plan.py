"""``aizheimer plan``: what a run will take, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Device, Json, MethodName, Model, Overrides

if TYPE_CHECKING:
    from aizheimer.api.planning import Plan


def plan(
    concept: Annotated[str, typer.Argument(metavar="CONCEPT", help="What would be forgotten.")],
    overrides: Overrides = None,
    *,
    model: Model = "emoji",
    device: Device = None,
    method: MethodName = "aizheimer",
    fit: Annotated[
        str | None,
        typer.Option("--fit", metavar="SIZE", help="Choose options with which it needs no more, such as 8GiB."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict the memory, the time and the disk that a run takes, from a few small steps on the model itself.

    A closed form is solved, which tells whether the default method trains at all.
    """
    del debug
    from aizheimer import api
    from aizheimer.api.planning import plan as predict
    from aizheimer.backbones.memory import parse_size

    size = None if fit is None else parse_size(fit)
    recipe = api.load_recipe(method, overrides or ())
    found = predict(api.load_model(model, device=device), concept, method=recipe, fit=size)
    if as_json:
        streams.print_json(found.model_dump(mode="json") | {"needed": found.needed})
        return
    _print(found)


def _print(found: Plan) -> None:
    from aizheimer.backbones.memory import size_text

    sizes = {name: size_text(count) for name, count in found.memory.items()}
    disk = {name: size_text(count) for name, count in found.disk.items()}
    seconds = found.seconds
    options = " ".join(f"{name}={_word(value)}" for name, value in found.options.items())
    memory, time = _trained(sizes, seconds) if found.trains else _solved(sizes, seconds)
    rows = {
        "memory": memory,
        "program": f"{sizes['program']} beside the tensors: in all {size_text(found.needed)}",
        "time": time,
        "disk": f"{disk['total']}: edit {disk['edit']}, checkpoint {disk['checkpoint']}, cache {disk['cache']}",
    }
    if found.enough is not None and found.left is not None:
        rows["training"] = (
            f"{'follows' if found.trains else 'none'}: the closed form leaves {found.left:.0%} of what the concept's "
            f"words say, and {found.enough:.0%} is enough"
        )
    streams.print_result(streams.pairs(rows | ({"options": options} if options else {}), indent=""))


def _trained(sizes: Mapping[str, str], seconds: Mapping[str, float]) -> tuple[str, str]:
    """Return what is said of the memory and the time of a method that trains."""
    solving = f"{seconds['solve']:.0f} s to solve, " if seconds["solve"] else ""
    return (
        f"{sizes['peak']}: weights {sizes['weights']}, and a step {sizes['step']}, rollouts {sizes['rollouts']}, "
        f"a look {sizes['look']} or a closed form {sizes['solve']}, whichever is most",
        f"{seconds['total']:.0f} s: {solving}{seconds['prepare']:.0f} s to prepare, {seconds['step']:.2f} s a step, "
        f"{seconds['look']:.1f} s a look",
    )


def _solved(sizes: Mapping[str, str], seconds: Mapping[str, float]) -> tuple[str, str]:
    """Return the same of a closed form."""
    return (
        f"{sizes['peak']}: weights {sizes['weights']}, and the closed form {sizes['solve']}",
        f"{seconds['total']:.0f} s to solve",
    )


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
