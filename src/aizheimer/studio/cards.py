"""What the page shows of a job, as HTML in which all that anybody typed is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from aizheimer.reports.curves import charts_from_history, svg
from aizheimer.studio.jobs import JobView

if TYPE_CHECKING:
    from jinja2 import Template

KINDS = ("forget", "try", "attention", "evaluate", "attack", "stack", "export")
"""Every kind of job: each has a place on the page that shows the newest of it."""


def now_card(views: Sequence[JobView]) -> str:
    """Return what runs or waits of a visitor's jobs.

    Args:
        views: All of them, oldest first.
    """
    open_jobs = [view for view in views if not view.ended]
    first = next((view for view in open_jobs if view.state == "running"), open_jobs[0] if open_jobs else None)
    return _macro("now", first, len(open_jobs) - 1)


def card(kind: str, view: JobView | None) -> str:
    """Return the newest job of a kind; what to expect there if there is none.

    Args:
        kind: One of `KINDS`.
        view: The job.
    """
    if kind == "forget":
        return _macro("forget", view, _charts(view), _sheet(view))
    if kind == "attention" and view is None:
        return ""  # the prompt's own place says what to expect
    names = {"try": "drawn", "attention": "drawn", "evaluate": "measured", "attack": "attacked"}
    names |= {"stack": "stacked", "export": "exported"}
    return _macro(names[kind], view)


def message(text: str) -> str:
    """Return a text as a message that shows it as it is."""
    return html.escape(text[:1].upper() + text[1:])


def _charts(view: JobView | None) -> list[dict[str, Any]]:
    if view is None:
        return []
    charts = charts_from_history(view.notes.get("history", ()))
    return [
        {"title": one.title, "subtitle": one.subtitle, "svg": svg(one), "last": f"{one.values[-1]:.3g}"}
        for one in charts
    ]


def _sheet(view: JobView | None) -> dict[str, Any] | None:
    if view is None or not (shown := view.notes.get("sheet")):
        return None
    label = "after" if view.state == "done" else "now"
    return {**shown, "label": label, "stamp": f"{shown['step']}{label}"}


def _macro(name: str, *values: Any) -> str:
    return str(getattr(_template().module, name)(*values))


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("aizheimer.studio").joinpath("cards.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        text
    )
