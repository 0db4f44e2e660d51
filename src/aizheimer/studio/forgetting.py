"""The job that makes an edit: it is watched while it trains, and keeps the best state when it is stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aizheimer.engine.callbacks import Callbacks, Row
from aizheimer.errors import InputError, did_you_mean
from aizheimer.studio.choices import methods
from aizheimer.studio.forms import ForgetForm
from aizheimer.studio.jobs import Desk, JobStopped, Work
from aizheimer.studio.works import Workshop, remember

if TYPE_CHECKING:
    from aizheimer.concepts.concept import Concept
    from aizheimer.edits.edit import Edit
    from aizheimer.recipes.load import Recipe
    from aizheimer.studio.sheet import SampleSheet

_TOLD = {
    "retain": "drawing what stays",
    "forget": "drawing what goes",
    "generate": "drawing the concept",
    "images": "reading the pictures",
    "average": "asking what other concepts say",
    "queries": "seeing what pictures look for",
    "saliency": "finding the weights that matter",
}
"""What the stages' own names mean to a visitor."""
_EVERY = 0.2
"""Seconds between two words about single steps."""


@dataclass
class Watch:
    """Tells the page what the engine says, and draws the sample sheet now and then."""

    desk: Desk
    sheet: SampleSheet | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    said: float = 0.0

    def callbacks(self) -> Callbacks:
        """Return what the engine calls."""
        return Callbacks(
            on_step=self.on_step,
            on_monitor=self.on_monitor,
            on_data=self.on_data,
            on_solved=self.on_solved,
            on_progress=lambda stage, done, total: self.desk.progress(_TOLD.get(stage, stage), done, total),
            should_stop=lambda: self.desk.stopping,
        )

    def on_data(self, row: Row) -> None:
        """Note what is kept."""
        near = [label for label, _ in row.get("neighbours", ())]
        self.desk.note(kept=[*row.get("kept", ()), *near])
        self.desk.progress("beginning", 0, 0)

    def on_solved(self, row: Row) -> None:
        """Note what a closed form changed."""
        self.desk.note(solved={"residual": row["residual"], "drift": row["drift"]})

    def on_step(self, row: Row) -> None:
        """Tell the step; a stop is left to the engine, which keeps the best state."""
        now = time.monotonic()
        if now - self.said >= _EVERY:
            self.said = now
            self.desk.say("forgetting", row["step"], row["steps"])

    def on_monitor(self, row: Row) -> None:
        """Note the curves' newest points, and draw the sheet if that is due."""
        self.history.append({"event": "monitor", **{key: value for key, value in row.items() if key != "layers"}})
        self.desk.note(history=list(self.history))
        if self.sheet is not None and self.sheet.is_due and not self.desk.stopping:
            self.desk.note(sheet=self.sheet.draw(row["step"]))


def forget_work(form: ForgetForm, shop: Workshop, *, pictures: Path | None = None) -> Work:
    """Make an edit, and show on the way what it does.

    Args:
        form: What to forget, and how.
        shop: Where.
        pictures: The concept's, decoded already.
    """
    recipe = recipe_for(form, pictures)

    def work(desk: Desk) -> Mapping[str, Any]:
        from aizheimer import api
        from aizheimer.studio.sheet import SampleSheet

        backbone = shop.backbone(form.model, desk)
        concept = api.as_concept(form.concept, world=backbone.world, keep=form.keep, anchor=form.anchor)
        shown = replace(concept, keep=form.keep or tuple(shop.shelf.neighbours(form.model, form.concept, 2)))
        watch = Watch(desk)
        watch.sheet = SampleSheet.begin(
            backbone,
            shown,
            visitor=shop.visitor,
            progress=lambda done, total: desk.progress("drawing samples before", done, total),
        )
        desk.note(sheet=watch.sheet.shown(watch.sheet.before, 0))
        run = shop.visitor.new_run(form.concept)
        edit = _forgotten(form, concept, recipe, run=run, watch=watch, shop=shop)
        desk.say("drawing samples after")
        step = int(edit.provenance.extra.get("step", 0))
        desk.note(sheet=watch.sheet.draw(step, edit))
        return {
            "run": run.name,
            "concept": concept.target,
            "method": recipe.name,
            "strength": form.strength,
            "tensors": len(edit.deltas),
            "bytes": edit.size_bytes,
            "stopped": edit.provenance.extra.get("stopped", ""),
            "step": step,
        }

    return work


def recipe_for(form: ForgetForm, pictures: Path | None = None) -> Recipe:
    """Return the recipe that a form asks for.

    Raises:
        InputError: There is no such method, or it has no steps to set, or takes no pictures.
    """
    from aizheimer import api

    if form.method not in (known := methods()):  # a recipe can also be a file, which is not for visitors to name
        raise InputError(f"method: there is no '{form.method}'.{did_you_mean(form.method, known)}")
    recipe = api.load_recipe(form.method)
    fields = type(recipe.method).model_fields
    overrides = []
    if form.keep and "retain_neighbours" in fields:
        overrides.append("retain_neighbours=0")  # the visitor has said which
    if form.steps is not None:
        if "training" not in fields:
            raise InputError(f"steps: {form.method} does not train; leave the number of steps to it.")
        overrides.append(f"training.steps={form.steps}")
    if pictures is not None:
        if "images" not in fields:
            raise InputError(f"pictures: {form.method} takes none; remove them, or choose another method.")
        overrides.append(f"images={pictures}")
    return api.load_recipe(form.method, overrides, seed=form.seed)


def _forgotten(
    form: ForgetForm, concept: Concept, recipe: Recipe, *, run: Path, watch: Watch, shop: Workshop
) -> Edit:  # fmt: skip
    """Forget within a run folder; what has no edit in the end is no run."""
    from aizheimer import api

    backbone = shop.shelf.backbone(form.model)
    try:
        edit = api.forget(backbone, concept, method=recipe, out=run, callbacks=watch.callbacks())
        if edit.is_noop and watch.desk.stopping:
            shutil.rmtree(run)
            raise JobStopped("stopped before anything was forgotten")
        if form.strength != 1.0:
            edit = edit.scale(form.strength)
            edit.save(run)
        return edit
    finally:
        if (run / "edit.json").is_file():
            remember(run, form.model)
        else:
            shutil.rmtree(run, ignore_errors=True)
