"""``aizheimer forget``: the command the package is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.guard import Interrupted
from aizheimer.cli.options import Debug, Json, Model, Overrides
from aizheimer.cli.picture import draw_before_after
from aizheimer.cli.show import changes
from aizheimer.errors import RunFolderError

if TYPE_CHECKING:
    from aizheimer.edits.edit import Edit

RUNS = Path("runs")


def forget(
    concept: Annotated[str, typer.Argument(metavar="CONCEPT", help="What to forget, as it is written in a prompt.")],
    overrides: Overrides = None,
    *,
    model: Model = "emoji",
    method: Annotated[
        str, typer.Option("--method", "--recipe", help="A method's or recipe's name, or a recipe file.")
    ] = "aizheimer",
    keep: Annotated[list[str] | None, typer.Option("--keep", help="A concept that must stay; may be repeated.")] = None,
    anchor: Annotated[str, typer.Option("--anchor", help="What takes the concept's place.")] = "",
    images: Annotated[
        str | None,
        typer.Option("--images", metavar="DIR|generate:N", help="Pictures that a method needs, mostly the concept's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", show_default="runs/CONCEPT", help="The run folder.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    allow_overfit: Annotated[
        bool, typer.Option("--allow-overfit", help="Switch the guard against catastrophic forgetting off.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model forget a concept, and save the change as an edit.

    The run folder gets the recipe, the edit, the history and a picture of the same prompts and seeds before and after.
    The model itself is not touched.
    """
    del debug
    folder = out if out is not None else RUNS / folder_name(concept)
    words = list(overrides or ())
    words += [f"images={json.dumps(images)}"] if images is not None else []
    words += ["training.allow_overfit=true"] if allow_overfit else []
    from aizheimer import api
    from aizheimer.cli.live import progress_bar, training_view

    recipe = api.load_recipe(method, words, seed=seed)
    backbone = api.load_model(model)
    target = api.as_concept(concept, world=backbone.world, keep=keep or (), anchor=anchor)
    title = f"forgetting {target.kind} '{target.target}' of {model} with {recipe.name}, into {folder}"
    try:
        with training_view(title, kind=recipe.method.info.kind) as callbacks:
            edit = api.forget(
                backbone, target, method=recipe, out=folder, resume=resume, overwrite=overwrite, callbacks=callbacks
            )
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"Interrupted. To continue, run the same command with --resume ({folder}).") from interrupt
    with progress_bar() as advance:
        picture = draw_before_after(
            backbone, edit, folder, progress=lambda done, total: advance("drawing before and after", done, total)
        )
    _print_result(edit, folder, picture, as_json=as_json)


def folder_name(concept: str) -> str:
    """Return a concept as the name of a folder: lower-case words joined by dashes.

    Example:
        >>> folder_name("Mrs. Claus")
        'mrs-claus'
    """
    words = "".join(letter if letter.isalnum() else " " for letter in concept.casefold()).split()
    if not words:
        raise RunFolderError(f"'{concept}' does not make a folder's name; name the run folder with --out.")
    return "-".join(words)


def _print_result(edit: Edit, folder: Path, picture: Path, *, as_json: bool) -> None:
    result = {
        "concept": edit.provenance.concept.target,
        "run": str(folder),
        "edit": str(folder / "edit.safetensors"),
        "picture": str(picture),
        "tensors": len(edit.deltas),
        "bytes": edit.size_bytes,
        "hook": edit.hook.name if edit.hook is not None else None,
    }
    if as_json:
        streams.print_json(result)
        return
    streams.print_result(f"edit       {result['edit']} ({changes(edit)})")
    streams.print_result(f"picture    {picture}")
