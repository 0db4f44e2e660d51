"""What the page's buttons do: a visitor, what was filled in, and a job in the queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aizheimer.errors import InputError
from aizheimer.studio.forgetting import forget_work, recipe_for
from aizheimer.studio.forms import AttackForm, EvaluateForm, ExportForm, ForgetForm, StackForm, TryForm, filled
from aizheimer.studio.jobs import JobQueue, JobView, Work
from aizheimer.studio.shelf import Shelf
from aizheimer.studio.uploads import take
from aizheimer.studio.visitors import Visitor
from aizheimer.studio.works import Workshop, attack_work, evaluate_work, export_work, stack_work, try_work

_WORKS: Mapping[str, tuple[type, Callable[..., Work], str]] = {
    "try": (TryForm, try_work, "drawing"),
    "attention": (TryForm, try_work, "reading attention"),
    "evaluate": (EvaluateForm, evaluate_work, "measuring"),
    "attack": (AttackForm, attack_work, "attacking"),
    "stack": (StackForm, stack_work, "adding up"),
    "export": (ExportForm, export_work, "exporting"),
}
"""Kind of job -> its form, its work, and what it does in words; forgetting has a place of its own."""


NOBODY = ""
"""Owner of the job that loads the model before anybody comes."""
LOADING_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Studio:
    """All visitors' studio: the models, the queue, and the folder that everything is in.

    Args:
        shelf: The models.
        queue: Runs the jobs.
        root: The folder.
    """

    shelf: Shelf
    queue: JobQueue
    root: Path

    def visitor(self, token: str | None) -> Visitor:
        """Return the visitor of a cookie.

        Raises:
            InputError: There is no cookie of ours.
        """
        return Visitor.of(token, root=self.root)

    def forget(self, visitor: Visitor, values: Mapping[str, Any], *, uploads: Sequence[str] = ()) -> str:
        """Queue the making of an edit; returns the job's id.

        Args:
            visitor: Who asks.
            values: What was filled in; see `ForgetForm`.
            uploads: Files of the concept's pictures, as the server received them.

        Raises:
            InputError: Something filled in, or uploaded, cannot be used.
        """
        form = filled(ForgetForm, values)
        self.shelf.check(form.model)
        recipe_for(form)  # a mistake is told before pictures are read
        pictures = take(uploads, visitor, uploads=self.root) if uploads else None
        shop = Workshop(shelf=self.shelf, visitor=visitor)
        work = forget_work(form, shop, pictures=pictures)
        return self.queue.submit(visitor.id, work, kind="forget", title=f"Forgetting “{form.concept}”")

    def ask(self, visitor: Visitor, kind: str, values: Mapping[str, Any]) -> str:
        """Queue a job on edits that are there; returns its id.

        Args:
            visitor: Who asks.
            kind: try, attention, evaluate, attack, stack or export.
            values: What was filled in.

        Raises:
            InputError: Something filled in cannot be used, or an edit is not there.
        """
        form_type, make, doing = _WORKS[kind]
        form = filled(form_type, values)
        names = [name for name, _ in form.parts] if isinstance(form, StackForm) else [form.run]
        if not names:
            raise InputError("there is no edit yet; forget something first.")
        for name in names:
            visitor.run(name)
        work = make(form, Workshop(shelf=self.shelf, visitor=visitor))
        title = f"{doing} {', '.join(names)}"
        return self.queue.submit(visitor.id, work, kind=kind, title=title[:1].upper() + title[1:])

    def suggest(self, model: str, concept: str) -> list[str]:
        """Return a concept's neighbours; nothing while a job has the machine, or if the concept cannot be read.

        The first visitor may be faster than the model is loaded, which is waited for.
        """
        if not concept.strip() or len(concept) > 80:
            return []
        loading = any(not view.ended for view in self.queue.all(NOBODY))
        with self.queue.between_jobs(LOADING_SECONDS if loading else 2.0) as free:
            return self.shelf.neighbours(model, concept.strip()) if free else []

    def stop(self, visitor: Visitor) -> bool:
        """Stop what runs of a visitor's jobs, or else the first that waits."""
        views = [view for view in self.queue.all(visitor.id) if not view.ended]
        views.sort(key=lambda view: view.state != "running")
        return bool(views) and self.queue.stop(visitor.id, views[0].id)

    def newest(self, visitor: Visitor, kind: str) -> JobView | None:
        """Return the newest job of a kind that has begun, or waits alone."""
        return next((view for view in reversed(self.queue.all(visitor.id)) if view.kind == kind), None)
