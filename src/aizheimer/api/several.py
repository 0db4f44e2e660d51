"""Forget several concepts, at once or one more later."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aizheimer._names import dashed
from aizheimer._processes import is_main, processes
from aizheimer.api.forgetting import describe, forget, recipe_of, refuse_other_recipe
from aizheimer.api.models import Model, as_concept, load_model
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.compose import stack, targets_of
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.edits.provenance import TEXT_FIELDS
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import PARTS, RunFolder
from aizheimer.errors import ConceptError, EditError, InputError, RunFolderError
from aizheimer.methods._several import takes_several, with_also
from aizheimer.methods.base import Method
from aizheimer.recipes.load import Recipe

LONGEST = 60
"""Letters of a concept in the name of its folder: file systems allow 255 bytes in all."""


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """Several concepts forgotten.

    Args:
        edit: The edit that forgets all of them.
        natively: Whether the method did it in one run; otherwise each was forgotten alone, and the edits were added.
        parts: The edits of the concepts, if each was forgotten alone.
    """

    edit: Edit
    natively: bool
    parts: tuple[Edit, ...] = ()


def forget_several(
    model: Model,
    concepts: Sequence[str | Concept],
    *,
    method: str | Path | Recipe | Method = "aizheimer",
    keep: Sequence[str] = (),
    out: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callable[[Concept], Callbacks] | None = None,
    **parameters: Any,
) -> Forgotten:
    """Make a model forget several concepts.

    A method that can (see `takes_several`) does it in one run. With any other, each concept is forgotten alone on the
    same base, and the edits are added.

    Args:
        model: What must forget.
        concepts: What to forget; figures are by default about the first.
        method: A method's or recipe's name, a recipe file, or either one loaded.
        keep: Concepts that must stay.
        out: The run folder; with None nothing is written. The runs of single concepts are in ``parts/``.
        seed: Of everything random.
        resume: Continue the run in ``out``: concepts that are done are not forgotten again.
        overwrite: Replace the run in ``out``.
        callbacks: Returns who is told of a concept's run.
        **parameters: Parameters of the method.

    Raises:
        ConceptError: There is no concept, or one is named twice or also kept.
        InputError: Something given cannot be used.

    Example:
        >>> forget_several("emoji", ["cat", "dog"], method="uce").natively  # doctest: +SKIP
        True
    """
    backbone = load_model(model)
    targets = _targets(concepts, backbone, keep)
    recipe = recipe_of(method, parameters, seed)
    told = callbacks or (lambda _concept: Callbacks())
    if len(targets) == 1 or takes_several(recipe.method):
        first, *others = targets
        several = _with_also(recipe, first, others, backbone=backbone) if others else recipe
        edit = forget(
            backbone,
            replace(first, keep=tuple(dict.fromkeys(word for target in targets for word in target.keep))),
            method=several,
            out=out,
            resume=resume,
            overwrite=overwrite,
            callbacks=told(targets[0]),
        )
        return Forgotten(edit=edit, natively=True)
    run = RunFolder(Path(out)).create(resume=resume, overwrite=overwrite) if out is not None else None
    return _each_alone(targets, recipe, backbone, run=run, told=told)


def forget_onto(
    model: Model,
    concept: str | Concept,
    *,
    earlier: Edit | str | Path,
    method: str | Path | Recipe | Method = "aizheimer",
    keep: Sequence[str] = (),
    anchor: str = "",
    out: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
    **parameters: Any,
) -> Edit:
    """Make a model that has forgotten something forget one concept more, and hold what it forgot.

    The method works on the edited model, whose every answer it is to keep but those about the new concept; the earlier
    concepts are among what it must keep, as the edited model draws them: forgotten.

    Args:
        model: The base of the earlier edit.
        concept: What to forget beside.
        earlier: The earlier edit or its run folder: changes of weights.
        method: A method's or recipe's name, a recipe file, or either one loaded.
        keep: Concepts that must stay.
        anchor: What takes the concept's place.
        out: The run folder; with None nothing is written.
        seed: Of everything random.
        resume: Continue the run in ``out``.
        overwrite: Replace the run in ``out``.
        callbacks: Told what happens.
        **parameters: Parameters of the method.

    Returns:
        One edit of the base that forgets all of it.

    Raises:
        EditError: The earlier edit acts while pictures are drawn, or is of another base.
        ConceptError: The concept is among those that were forgotten before.
        InputError: Something else given cannot be used.
    """
    backbone = load_model(model)
    before = earlier if isinstance(earlier, Edit) else load_edit(earlier)
    target = as_concept(concept, world=backbone.world, keep=keep, anchor=anchor)
    forgotten = targets_of(before)
    if target.target.casefold() in {word.casefold() for word in forgotten}:
        raise ConceptError(f"'{target.target}' is forgotten by the earlier edit already; name another concept.")
    held = replace(target, keep=tuple(dict.fromkeys([*target.keep, *forgotten])))
    recipe = recipe_of(method, parameters, seed)
    with _merged(backbone, before):
        new = forget(backbone, held, method=recipe, out=out, resume=resume, overwrite=overwrite, callbacks=callbacks)
    total = stack(_rebased(new, before), before)
    if out is not None and is_main():
        total.save(out)
    return total


def _targets(concepts: Sequence[str | Concept], backbone: Backbone, keep: Sequence[str]) -> list[Concept]:
    found = []
    for concept in concepts:
        one = as_concept(concept, world=backbone.world)
        found.append(replace(one, keep=tuple(dict.fromkeys([*one.keep, *keep]))))
    names = [concept.target.casefold() for concept in found]
    if not found:
        raise ConceptError("got no concept to forget; name one or more.")
    if twice := next((concept.target for concept in found if names.count(concept.target.casefold()) > 1), None):
        raise ConceptError(f"'{twice}' is named twice; name each concept once.")
    if kept := next((word for concept in found for word in concept.keep if word.casefold() in names), None):
        raise ConceptError(f"keep: '{kept}' cannot be kept and forgotten at once; take it out of keep.")
    return found


def _with_also(recipe: Recipe, first: Concept, others: Sequence[Concept], *, backbone: Backbone) -> Recipe:
    """Name the other concepts in a method's ``also``, which has words only.

    Raises:
        ConceptError: If a method that reads prompts would take one for another kind of thing than it is, or one has an
            anchor, which words cannot say.
        RecipeError: If the method's other parameters do not go with them.
    """
    method: Any = recipe.method
    instead = "name it first, or forget it in a run of its own and stack the two."
    for other in others:
        kind = backbone.world.beside(other.target, first).kind
        if method.info.kind != "runtime" and kind != other.kind:
            done = "trained" if method.info.kind == "fine-tune" else "read"
            raise ConceptError(
                f"'{other.target}' is of the kind {other.kind}, and would be {done} as {kind} beside "
                f"'{first.target}'; {instead}"
            )
        if method.info.kind != "runtime" and other.anchor:
            raise ConceptError(
                f"'{other.target}' has the anchor '{other.anchor}', and in one run only the first concept, "
                f"'{first.target}', has one; {instead}"
            )
    return replace(recipe, method=with_also(method, [other.target for other in others], label=recipe.name))


def _each_alone(
    targets: Sequence[Concept],
    recipe: Recipe,
    backbone: Backbone,
    *,
    run: RunFolder | None,
    told: Callable[[Concept], Callbacks],
) -> Forgotten:
    """Forget each of several concepts on the same base, and add the edits."""
    folders = part_folders([target.target for target in targets])
    parts: list[Edit] = []
    try:
        if run is not None:  # so that the folder is known to be a run from here on
            processes().on_main(lambda: describe(run, recipe, backbone))
        for target, name in zip(targets, folders, strict=True):
            own = None if run is None else RunFolder(run.file(PARTS) / name)
            resume = run is not None and run.resuming
            parts.append(_part(target, recipe, backbone, own=own, resume=resume, callbacks=told(target)))
    except InputError:
        if run is not None and not parts:
            run.undo()
        raise
    total = stack(*parts)
    if run is not None:
        if is_main():
            total.save(run.path)
        run.keep()
    return Forgotten(edit=total, natively=False, parts=tuple(parts))


def part_folders(words: Sequence[str]) -> list[str]:
    """Return a folder's name for each of several concepts, no two alike.

    It is the concept's letters and digits, with the hash of the concept where they do not tell it from the others.

    Example:
        >>> part_folders(["Mrs. Claus", "C++", "C#"])
        ['mrs-claus', 'c-cedb1bac', 'c-951a4d36']
    """
    stems = [dashed(word)[:LONGEST] or "concept" for word in words]
    hashes = [hashlib.sha256(word.casefold().encode()).hexdigest()[:8] for word in words]
    return [stem if stems.count(stem) == 1 else f"{stem}-{own}" for stem, own in zip(stems, hashes, strict=True)]


def _part(
    target: Concept,
    recipe: Recipe,
    backbone: Backbone,
    *,
    own: RunFolder | None,
    resume: bool,
    callbacks: Callbacks,
) -> Edit:
    """Forget one of several concepts, or load it if that was done before the run was interrupted."""
    if own is None:
        return forget(backbone, target, method=recipe, callbacks=callbacks)
    if resume and own.file("edit.json").is_file():
        return _done_before(target, recipe, own)
    begun = resume and own.holds_run()
    return forget(backbone, target, method=recipe, out=own.path, resume=begun, callbacks=callbacks)


def _done_before(target: Concept, recipe: Recipe, own: RunFolder) -> Edit:
    """Load the edit of a part that was done before.

    Raises:
        RunFolderError: If it is of another concept, keeps something else, or was made with another recipe.
    """
    refuse_other_recipe(own, recipe)
    done = load_edit(own.path)
    was = done.provenance.concept
    if (was.target, was.keep) != (target.target, target.keep):
        kept = [f", keeping {', '.join(words)}" if words else "" for words in (was.keep, target.keep)]
        raise RunFolderError(
            f"{own.path} holds '{was.target}'{kept[0]}, wanted '{target.target}'{kept[1]}; "
            "resume with the same, or replace the run with --overwrite."
        )
    return done


@contextmanager
def _merged(backbone: Backbone, edit: Edit) -> Iterator[None]:
    """Have an edit of weights on the model for the length of a ``with`` block."""
    if not edit.mergeable:
        raise EditError(
            f"the earlier edit acts while pictures are drawn (method {edit.provenance.method}), so nothing can be "
            "trained onto it; forget the concept alone and stack the two"
        )
    with edit.as_weights(backbone.pipe).applied(backbone.pipe):
        yield


def _rebased(new: Edit, earlier: Edit) -> Edit:
    """Return an edit that was made on the edited model as one of the base: its changes add to the earlier ones."""
    origin = new.provenance
    texts = origin.text_fingerprints
    update = {
        "base_fingerprint": earlier.provenance.base_fingerprint,
        **{TEXT_FIELDS[part]: earlier.provenance.fingerprints[part] or own for part, own in texts.items()},
        "extra": {**origin.extra, "onto": earlier.digest},
    }
    return Edit(new.deltas, origin.model_copy(update=update), new.hook)
