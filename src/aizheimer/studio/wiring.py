"""What happens at the page: which button asks for what, and what is drawn anew each second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any

from aizheimer.errors import AizheimerError, InputError
from aizheimer.studio.cards import KINDS, card, message, now_card
from aizheimer.studio.choices import method_note
from aizheimer.studio.chosen import Sliders
from aizheimer.studio.forms import BOXES
from aizheimer.studio.jobs import JobView
from aizheimer.studio.orders import Studio
from aizheimer.studio.visitors import COOKIE, Visitor

if TYPE_CHECKING:
    from aizheimer.studio.page import Parts

QUIET = {"show_progress": "hidden", "api_visibility": "private"}
"""Of every event: the page shows progress itself, and none is an interface for others."""
AT_ONCE = {"queue": False}
"""Of what happens each second: it needs no place in Gradio's queue, whose answers take another request. Buttons are in
it, since Gradio shows the messages of what is."""
BUSY_SECONDS, IDLE_SECONDS = 1.0, 5.0
"""How often the page looks for news."""


def token_of(cookies: str) -> str | None:
    """Return the visitor's secret in a request's cookies.

    Example:
        >>> token_of("theme=dark; aizheimer-visitor=abc")
        'abc'
    """
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None
    return found.value if found is not None else None


class Wiring:
    """The page's handlers. Each is given the visitor first; mistakes become messages."""

    def __init__(self, gr: Any, studio: Studio, parts: Parts) -> None:
        self.gr, self.studio, self.parts = gr, studio, parts

    def by_visitor(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return a handler for Gradio: it finds the visitor, and shows what was wrong as a message."""

        def handle(request: Any, *values: Any) -> Any:
            try:
                visitor = self.studio.visitor(token_of(request.headers.get("cookie", "")))
                return act(visitor, *values)
            except AizheimerError as error:
                raise self.gr.Error(
                    message(str(error)), duration=10, print_exception=False, title="This does not work"
                ) from None

        handle.__annotations__ = {"request": self.gr.Request}  # by which Gradio knows what it wants
        return handle

    def forget(self, visitor: Visitor, *values: Any) -> Any:
        """Queue an edit."""
        names = ("model", "concept", "keep", "method", "strength", "anchor", "steps", "seed")
        *given, pictures = values
        filled = {name: value for name, value in zip(names, given, strict=True) if value is not None}
        self.studio.forget(visitor, filled, uploads=pictures or ())
        return self.now(visitor)

    def ask(self, kind: str, *names: str) -> Callable[..., Any]:
        """Return a handler that queues a job of a kind, from values of these names."""

        def act(visitor: Visitor, *values: Any) -> Any:
            given = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            if not given.get("run"):
                raise InputError("there is no edit yet; forget something first.")
            if kind == "attention":
                given["words"] = _split(given.get("words", ""))
            self.studio.ask(visitor, kind, given)
            return self.now(visitor)

        return act

    def stack(self, visitor: Visitor, names: Sequence[str], *strengths: float) -> Any:
        """Queue the sum of edits."""
        parts = Sliders.read(names, strengths).strengths.items()
        self.studio.ask(visitor, "stack", {"parts": [part for part in parts if part[1]]})
        return self.now(visitor)

    def choose(self, visitor: Visitor, chosen: Sequence[str], names: Sequence[str], *strengths: float) -> list[Any]:
        """Show a slider for each edit that was chosen; those that were there stand where they stood."""
        there = visitor.names()
        return self._sliders(Sliders.read(names, strengths).choose([name for name in chosen if name in there]))

    def stop(self, visitor: Visitor, seen: dict[str, Any], names: Sequence[str], *strengths: float) -> list[Any]:
        """Stop what runs, and show at once what became of it: the page looks seldom when nothing runs."""
        self.studio.stop(visitor)
        return self.refresh(visitor, seen, names, *strengths)

    def delete(self, visitor: Visitor, name: str | None) -> Any:
        """Delete an edit."""
        if not name:
            raise InputError("there is no edit to delete.")
        visitor.delete(name)
        return self.now(visitor)

    def suggest(self, visitor: Visitor, model: str, concept: str) -> Any:
        """Fill in the concept's neighbours as what is kept."""
        del visitor
        try:
            near = self.studio.suggest(model, concept)
        except InputError:
            near = []  # it is told when the button is pressed
        return self.gr.update(choices=near, value=near)

    def now(self, visitor: Visitor) -> list[Any]:
        """Return what runs, whether it can be stopped, and how soon to look again."""
        views = self.studio.queue.all(visitor.id)
        busy = any(not view.ended for view in views)
        again = self.gr.Timer(BUSY_SECONDS if busy else IDLE_SECONDS)
        return [now_card(views), self.gr.update(visible=busy), again]

    def refresh(self, visitor: Visitor, seen: dict[str, Any], shown: Sequence[str], *strengths: float) -> list[Any]:
        """Return what has changed since the page last looked.

        Args:
            visitor: Who looks.
            seen: What the page showed then.
            shown: The edits that have sliders.
            *strengths: Where these stand.
        """
        found = dict(seen)
        views = {kind: self._changed(kind, self.studio.newest(visitor, kind), found) for kind in KINDS}
        slider = self._slider(visitor, views["try"])
        cards = [self.gr.skip() if view is _SAME else card(kind, view) for kind, view in views.items()]
        names, old = visitor.names(), found.get("names", [])
        lists = self._lists(names, Sliders.read(shown, strengths), fresh=found.get("names") != names, old=old)
        found["names"] = names
        return [*self.now(visitor), *cards, slider, *lists, found]

    def _changed(self, kind: str, view: JobView | None, seen: dict[str, Any]) -> Any:
        mark = (view.id, view.version) if view is not None else None
        if seen.get(kind, "unseen") == mark:
            return _SAME
        seen[kind] = mark
        return view

    def _slider(self, visitor: Visitor, view: Any) -> Any:
        if view is _SAME or view is None or view.state != "done":
            return self.gr.skip()
        files = [str(visitor.file("pictures", view.result[name])) for name in ("before", "after")]
        return self.gr.update(value=tuple(files), visible=True)

    def _lists(self, names: list[str], sliders: Sliders, *, fresh: bool, old: Sequence[str]) -> list[Any]:
        """Return the edits as choices and as sliders; a new edit is chosen everywhere."""
        gr, combine = self.gr, self.parts.combine
        if not fresh:
            return [gr.skip() for _ in range(len(self.parts.edit) + len(combine["sliders"]) + 4)]
        came = bool(names) and (not old or names[0] not in old)
        gone = not set(old) <= set(names)
        chosen = {"value": names[0] if names else None} if came or gone else {}
        choices = [gr.update(choices=names, **chosen) for _ in self.parts.edit]
        sliders = sliders.follow(names, old=old)
        several = gr.update(choices=names, value=list(sliders.strengths), visible=bool(names))
        return [
            *choices,
            *self._sliders(sliders),
            several,
            gr.update(visible=bool(names)),
            gr.update(visible=not names),
        ]

    def _sliders(self, sliders: Sliders) -> list[Any]:
        """Return the sliders under Combine, and the names that they are of."""
        rows = [self.gr.update(visible=True, label=name, value=at) for name, at in sliders.strengths.items()]
        hidden = len(self.parts.combine["sliders"]) - len(rows)
        return [
            *rows,
            *(self.gr.update(visible=False, label="", value=0.0) for _ in range(hidden)),
            list(sliders.strengths),
        ]


_SAME = object()
"""Stands for a job that has not changed."""


def _split(words: str) -> list[str]:
    found = [word.strip() for word in words.split(",") if word.strip()]
    if not found:
        raise InputError("words: nothing is there yet; write words of the prompt, with commas between.")
    return found


def wire(gr: Any, blocks: Any, studio: Studio, parts: Parts) -> None:
    """Connect every button of the page, and have it look for news each second."""
    wiring = Wiring(gr, studio, parts)
    now = [parts.now, parts.stop, parts.timer]
    forget, try_, measure, combine, export = parts.forget, parts.try_, parts.measure, parts.combine, parts.export

    def on(event: Any, act: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], **options: Any) -> None:
        event(wiring.by_visitor(act), list(inputs), list(outputs), **{**QUIET, **options})

    def button(part: dict[str, Any], name: str, kind: str, **inputs: Any) -> None:
        on(part[name].click, wiring.ask(kind, *inputs), list(inputs.values()), now)

    names = ("model", "concept", "keep", "method", "strength", "anchor", "steps", "seed", "pictures")
    on(forget["start"].click, wiring.forget, [forget[name] for name in names], now)
    for event in (forget["concept"].blur, forget["concept"].submit, forget["model"].change):
        on(event, wiring.suggest, [forget["model"], forget["concept"]], [forget["keep"]])
    on(
        forget["method"].change,
        lambda _visitor, name: f'<p class="az-method">{message(method_note(name))}</p>',
        [forget["method"]],
        [forget["note"]],
    )
    drawn = {name: try_[name] for name in ("run", "prompt", "seed", "strength")}
    button(try_, "draw", "try", **drawn)
    button(try_, "look", "attention", **drawn, words=try_["words"])
    button(measure, "evaluate", "evaluate", run=measure["run"], samples=measure["samples"])
    attacked = {name: measure[name] for name in ("run", "attack", "images", "controls")}
    button(measure, "go", "attack", **attacked)
    written = ("run", "format", "rank", "strength", *BOXES)
    button(export, "write", "export", **{name: export[name] for name in written})
    on(export["delete"].click, wiring.delete, [export["run"]], now)
    standing = [combine["names"], *combine["sliders"]]
    on(combine["add"].click, wiring.stack, standing, now)
    on(combine["chosen"].input, wiring.choose, [combine["chosen"], *standing], [*combine["sliders"], combine["names"]])

    seen = gr.State({})
    cards = [forget["card"], try_["card"], try_["maps"], measure["evaluated"], measure["attacked"]]
    cards += [combine["card"], export["card"], try_["slider"]]
    lists = [*parts.edit, *combine["sliders"], combine["names"], combine["chosen"], combine["add"], combine["empty"]]
    news = [*now, *cards, *lists, seen]
    for event, act, options in (
        (parts.stop.click, wiring.stop, {}),
        (blocks.load, wiring.refresh, AT_ONCE),
        (parts.timer.tick, wiring.refresh, AT_ONCE),
    ):
        on(event, act, [seen, *standing], news, **options)
