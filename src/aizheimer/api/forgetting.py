"""Make a model forget, in one call, with or without a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aizheimer._launcher import check_launcher, check_training, refuse_sharding
from aizheimer._processes import is_main, processes
from aizheimer._records import parse_json
from aizheimer.api._overrides import dotted
from aizheimer.api.models import Model, address_of, as_concept, environment, load_model
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.provenance import ConceptRecord
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import InputError, RunFolderError
from aizheimer.methods.base import Method
from aizheimer.recipes.load import Recipe, load_recipe


def forget(
    model: Model,
    concept: str | Concept,
    *,
    method: str | Path | Recipe | Method = "aizheimer",
    keep: Sequence[str] = (),
    anchor: str = "",
    images: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
    **parameters: Any,
) -> Edit:
    """Make a model forget a concept.

    The model itself is bit-identical afterwards: the edit changes it while it is applied.

    Args:
        model: What must forget; see the module's first lines.
        concept: Its words, as they are written in a prompt, or a `Concept`.
        method: A method's or recipe's name, a recipe file, or either one loaded.
        keep: Concepts that must stay, beside the nearest neighbours.
        anchor: What takes the concept's place.
        images: A folder of the concept's pictures, or ``"generate:N"``; by default the method's own choice.
        out: The run folder; with None nothing is written.
        seed: Of everything random; by default the method's own.
        resume: Continue the run in ``out``, to the same bits as if it had never stopped.
        overwrite: Replace the run in ``out``.
        callbacks: Told what happens.
        **parameters: Parameters of the method, nested as in a recipe: ``training={"steps": 100}``.

    Returns:
        The edit, which has also been saved when there is a run folder.

    Raises:
        InputError: Something given cannot be used; nothing is written then, and an old run is as it was.
        TrainingError: Training diverged; with a run folder, the edit of the best state has been saved.

    Example:
        >>> edit = forget(pipe, "Santa Claus", keep=["Mrs. Claus"])  # doctest: +SKIP
        >>> with edit.applied(pipe):  # doctest: +SKIP
        ...     pipe("Santa Claus in noto style")
    """
    recipe = recipe_of(method, parameters | ({"images": images} if images is not None else {}), seed)
    backbone = load_model(model)
    target = as_concept(concept, world=backbone.world, keep=keep, anchor=anchor)
    if out is None:
        if resume or overwrite:
            raise RunFolderError("Got resume or overwrite without a run folder; name it with out.")
        return recipe.method.unlearn(backbone, target, callbacks=callbacks)
    return _forget_into(Path(out), recipe, backbone, target, resume=resume, overwrite=overwrite, callbacks=callbacks)


def _forget_into(
    folder: Path,
    recipe: Recipe,
    backbone: Backbone,
    target: Concept,
    *,
    resume: bool,
    overwrite: bool,
    callbacks: Callbacks | None,
) -> Edit:
    """Forget within a run folder; after bad input it is what it was, or is not there."""
    run = RunFolder(folder).create(resume=resume, overwrite=overwrite)
    try:
        processes().on_main(lambda: describe(run, recipe, backbone, target=target))
        edit = recipe.method.unlearn(backbone, target, run=run, callbacks=callbacks)
    except InputError:
        run.undo()
        raise
    except BaseException:
        run.keep()  # an interrupted run can be resumed, and one that diverged has its best state
        raise
    if is_main():
        edit.save(folder)
    run.keep()
    return edit


def recipe_of(method: str | Path | Recipe | Method, parameters: Mapping[str, Any], seed: int | None) -> Recipe:
    """Return a method in any form as a recipe with these parameters, which are those the launcher wants if it says any.

    Raises:
        InputError: There is no such method or parameter, or a loaded method came with parameters beside it.
    """
    recipe = _recipe_of(method, dotted(parameters), seed)
    training: Any = getattr(recipe.method, "training", None)
    check_launcher()
    if training is None:
        refuse_sharding(f"{recipe.name}, which trains nothing")
    else:
        check_training(training)
    return recipe


def _recipe_of(method: str | Path | Recipe | Method, overrides: Sequence[str], seed: int | None) -> Recipe:
    if isinstance(method, str | Path):
        return load_recipe(method, overrides, seed=seed)
    if overrides or seed is not None:
        beside = overrides[0] if overrides else f"seed={seed}"
        raise InputError(f"Got a loaded method and parameters ({beside}) beside it; put them into the method.")
    if isinstance(method, Recipe):
        return method
    return Recipe(name=method.name, description="", method_name=method.name, method=method)


def describe(run: RunFolder, recipe: Recipe, backbone: Backbone, *, target: Concept | None = None) -> None:
    """Write what the run is made with; a resumed run must be made with the same.

    Args:
        run: The run folder.
        recipe: Method and parameters.
        backbone: The model.
        target: What is forgotten; None for several concepts, whose parts say so themselves.

    Raises:
        RunFolderError: If it was started with other parameters, another method or another concept.
    """
    concept = None if target is None else ConceptRecord.of(target).model_dump(mode="json")
    if run.resuming:
        refuse_other_recipe(run, recipe)
        if concept is not None:
            _refuse_other_concept(run, concept)
    run.write_yaml("recipe.yaml", recipe.resolved())
    named = {} if concept is None else {"concept": concept}
    run.write_json("env.json", {"model": address_of(backbone), **named, **environment(backbone.device)})


def _refuse_other_concept(run: RunFolder, now: Mapping[str, Any]) -> None:
    """Refuse a resumed run of another concept; one of before the concept was written down is let through."""
    try:
        was = parse_json(run.file("env.json").read_text(encoding="utf-8"))["concept"]
        pairs = [f"concept.{key} was {was.get(key)!r}, is {now[key]!r}" for key in now if was.get(key) != now[key]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if pairs:
        raise RunFolderError(
            f"{run.path} was started for another concept ({'; '.join(pairs)}); "
            "resume with the same, or replace the run with --overwrite."
        )


def refuse_other_recipe(run: RunFolder, recipe: Recipe) -> None:
    """Refuse to go on with a run that was made with other parameters or another method.

    Raises:
        RunFolderError: If it was; the message names what differs.
    """
    file = run.file("recipe.yaml")
    if not file.exists():
        return
    before, content = load_recipe(file).resolved(), recipe.resolved()
    if before["method"] != content["method"]:
        raise RunFolderError(
            f"{run.path} was started with the method {before['method']}, not {content['method']}; "
            "resume with the same, or replace the run with --overwrite."
        )
    was = before["parameters"]
    if changed := [key for key, value in content["parameters"].items() if value != was.get(key)]:
        raise RunFolderError(
            f"{run.path} was started with other parameters ({', '.join(changed)}); "
            "resume with the same, or replace the run with --overwrite."
        )
