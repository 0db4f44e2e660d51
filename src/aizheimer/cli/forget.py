"""``aizheimer forget``: the command the package is for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer._names import dashed
from aizheimer.cli import streams
from aizheimer.cli.guard import on_interrupt
from aizheimer.cli.options import (
    Anchor,
    Debug,
    Device,
    Json,
    Keep,
    MethodName,
    Model,
    Out,
    Overwrite,
    Target,
)
from aizheimer.cli.picture import draw_before_after
from aizheimer.cli.show import changes
from aizheimer.errors import InputError, RunFolderError

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone
    from aizheimer.concepts.concept import Concept
    from aizheimer.edits.edit import Edit
    from aizheimer.recipes.load import Recipe

RUNS = Path("runs")


def forget(
    concept: Target,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONCEPT...] [KEY=VALUE...]",
            help="More concepts; and parameters of the method, such as training.steps=100.",
        ),
    ] = None,
    *,
    model: Model = "emoji",
    device: Device = None,
    method: MethodName = "aizheimer",
    keep: Keep = None,
    anchor: Anchor = "",
    images: Annotated[
        str | None,
        typer.Option("--images", metavar="DIR|generate:N", help="Pictures that a method needs, mostly the concept's."),
    ] = None,
    onto: Annotated[
        Path | None, typer.Option("--onto", metavar="RUN", help="Forget beside what this run forgot, and hold that.")
    ] = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    allow_overfit: Annotated[
        bool, typer.Option("--allow-overfit", help="Switch the guard against catastrophic forgetting off.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model forget a concept, or several, and save the change as an edit.

    The run folder gets the recipe, the edit, the history and a picture of the same prompts and seeds before and after.
    The model itself is not touched. Several concepts are forgotten in one run by methods that can, and by any other
    alone, one after the other, and added up.
    """
    del debug
    concepts = [concept, *(word for word in words or () if "=" not in word)]
    folder = out if out is not None else RUNS / folder_name(" ".join(concepts))
    overrides = _overrides(words or (), images=images, allow_overfit=allow_overfit)
    if len(concepts) > 1 and (anchor or onto is not None):
        raise InputError(f"Got {len(concepts)} concepts and --{'anchor' if anchor else 'onto'}; give one concept.")
    from aizheimer import api

    recipe = api.load_recipe(method, overrides, seed=seed)
    backbone = api.load_model(model, device=device)
    targets = [api.as_concept(word, world=backbone.world, keep=keep or (), anchor=anchor) for word in concepts]
    with on_interrupt(f"To continue, run the same command with --resume ({folder})."):
        how, edit = _forget(
            backbone, targets, recipe, folder, onto=onto, resume=resume, overwrite=overwrite, model=model
        )
    picture = _draw(backbone, edit, folder)
    _print_result(edit, folder, picture, how=how, as_json=as_json)


def _overrides(words: Sequence[str], *, images: str | None, allow_overfit: bool) -> list[str]:
    """Return the recipe's overrides that were typed, as parameters or as options."""
    overrides = [word for word in words if "=" in word]
    overrides += [f"images={json.dumps(images)}"] if images is not None else []
    return overrides + (["training.allow_overfit=true"] if allow_overfit else [])


def _forget(
    backbone: Backbone,
    targets: Sequence[Concept],
    recipe: Recipe,
    folder: Path,
    *,
    onto: Path | None,
    resume: bool,
    overwrite: bool,
    model: str,
) -> tuple[str, Edit]:
    """Forget one concept, one more, or several; return how several were forgotten, and the edit."""
    from aizheimer import api
    from aizheimer.cli.live import training_view

    first = targets[0]
    title = _title(targets, f"of {model} with {recipe.name} on {backbone.device}, into {folder}")
    kind = recipe.method.info.kind
    if len(targets) > 1:
        with training_view(title, kind=kind) as callbacks:
            done = api.forget_several(
                backbone,
                targets,
                method=recipe,
                out=folder,
                resume=resume,
                overwrite=overwrite,
                callbacks=lambda _concept: callbacks,
            )
        how = f"in one run of {recipe.name}" if done.natively else "each alone, and the edits added"
        return how, done.edit
    with training_view(title, kind=kind) as callbacks:
        if onto is not None:
            edit = api.forget_onto(
                backbone,
                first,
                earlier=onto,
                method=recipe,
                out=folder,
                resume=resume,
                overwrite=overwrite,
                callbacks=callbacks,
            )
            return f"onto {onto}, whose concepts are held", edit
        edit = api.forget(
            backbone, first, method=recipe, out=folder, resume=resume, overwrite=overwrite, callbacks=callbacks
        )
    return "", edit


def _title(targets: Sequence[Concept], how: str) -> str:
    if len(targets) == 1:
        return f"forgetting {targets[0].kind} '{targets[0].target}' {how}"
    names = ", ".join(f"'{target.target}'" for target in targets)
    return f"forgetting {len(targets)} concepts ({names}) {how}"


def _draw(backbone: Backbone, edit: Edit, folder: Path) -> Path:
    from aizheimer.cli.live import progress_bar

    with progress_bar() as advance:
        return draw_before_after(
            backbone, edit, folder, progress=lambda done, total: advance("drawing before and after", done, total)
        )


def folder_name(concept: str) -> str:
    """Return a concept as the name of a folder: lower-case words joined by dashes.

    Example:
        >>> folder_name("Mrs. Claus")
        'mrs-claus'
    """
    name = dashed(concept)
    if not name:
        raise RunFolderError(f"'{concept}' does not make a folder's name; name the run folder with --out.")
    return name


def _print_result(edit: Edit, folder: Path, picture: Path, *, how: str, as_json: bool) -> None:
    from aizheimer.edits.compose import targets_of

    result = {
        "concept": edit.provenance.concept.target,
        "concepts": list(targets_of(edit)),
        "how": how or "one concept",
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
    if how:
        streams.print_result(f"forgotten  {how}")
    streams.print_result(f"edit       {result['edit']} ({changes(edit)})")
    streams.print_result(f"picture    {picture}")
    for name, line in edit.provenance.printed.items():
        streams.print_result(f"{name:<10} {line}")
