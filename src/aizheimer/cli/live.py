"""What the user sees while a model forgets: bars and curves on a terminal, plain lines in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aizheimer.cli.sparkline import sparkline
from aizheimer.cli.streams import progress_console, say

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

    from aizheimer.engine.callbacks import Callbacks, Row

_NEIGHBOURS_SHOWN = 12

_STAGES = {
    "retain": "pictures to keep",
    "forget": "pictures to forget",
    "generate": "pictures of the concept",
    "images": "your pictures",
    "pictures": "drawing",
    "attention": "attention maps",
    "average": "what other concepts say",
    "queries": "what pictures look for",
    "saliency": "which weights matter",
}
"""What the stages' own names mean to a user."""

_WATCHED = {
    "attention_mass": "attention mass",
    "erase_error": "distance to the target",
    "forget_drift": "change of the concept",
    "retention_drift": "retention drift",
}
"""What is watched on held-out examples, in the order it is shown; a method watches some of it."""


@contextmanager
def training_view(title: str, *, kind: str = "fine-tune") -> Iterator[Callbacks]:
    """Yield the callbacks of a live view on stderr: curves on a terminal, one line a look elsewhere.

    Args:
        title: Said when the first event arrives, so that bad input is answered by its error alone.
        kind: The method's, which says what it does: ``"fine-tune"``, ``"closed form"`` or ``"runtime"``.
    """
    from aizheimer.engine.callbacks import Callbacks

    console = progress_console()
    if not console.is_terminal:
        lines = PlainView(title, kind)
        yield Callbacks(
            on_monitor=lines.on_monitor,
            on_data=lines.on_data,
            on_progress=lines.on_progress,
            on_solved=lines.on_solved,
        )
        return

    from rich.live import Live

    curves = CurvesView(title)
    with Live(get_renderable=curves.render, console=console, refresh_per_second=8) as live:

        def on_data(row: Row) -> None:
            for line in describe_data(row, kind=kind):
                live.console.print(line)

        yield Callbacks(
            on_step=curves.on_step,
            on_monitor=curves.on_monitor,
            on_data=on_data,
            on_progress=curves.on_progress,
            on_solved=lambda row: live.console.print(describe_solved(row)),
        )


def describe_data(row: Row, *, kind: str = "fine-tune") -> list[str]:
    """Say in a few lines what a method of that kind will do, and which neighbours will be kept."""
    lines = []
    if kept := row.get("kept"):
        lines.append(f"keeping    {', '.join(kept)} (asked for)")
    if neighbours := row.get("neighbours"):
        named = [f"{label} {similarity:.2f}" for label, similarity in neighbours[:_NEIGHBOURS_SHOWN]]
        more = len(neighbours) - len(named)
        lines.append(f"keeping    {', '.join(named)}{f' and {more} more' if more > 0 else ''} (nearest, by cosine)")
    if kind == "runtime":
        where = f", {_where(row)}" if row.get("layers") else ""
        return [*lines, f"runtime    nothing is trained; the edit acts while pictures are drawn{where}"]
    forget, retain = len(row.get("forget_prompts", ())), len(row.get("retain_prompts", ()))
    doing = "solving" if kind == "closed form" else "editing"
    what = _count(parameters, "tensor") if (parameters := row.get("parameters")) else "adapters"
    lines.append(f"{doing}    {what} {_where(row)}, on {forget} prompts to forget and {retain} to retain")
    return lines


def _where(row: Row) -> str:
    """Say which part of the model is edited: attention layers, if they hold all of it."""
    if (network := str(row.get("network", ""))).startswith("text_encoder"):
        return "of the text encoders" if network == "text_encoders" else "of the text encoder"
    layers = tuple(f"{layer}." for layer in row.get("layers", ()))
    inside = all(name.startswith(layers) for name in row.get("parameters", ()))
    return f"in {_count(row.get('layers'), 'attention layer')}" if inside else "of the denoiser"


def describe_monitor(row: Row) -> str:
    """Say in one line what a look at the held-out set found."""
    found = [f"step {row['step']}/{row['steps']}"]
    found += [f"{words} {row[name]:.4f}{_since_start(name, row)}" for name, words in _WATCHED.items() if name in row]
    return "  ".join(found)


def describe_solved(row: Row) -> str:
    """Say in one line what a closed form changed, on the text alone."""
    return (
        f"solved     {1 - row['residual']:.0%} of what the concept's words say is replaced, "
        f"other words moved by {row['drift']:.1%}"
    )


def _since_start(name: str, row: Row) -> str:
    return f" ({row['mass_ratio']:.0%} of its start)" if name == "attention_mass" else ""


def _count(value: Any, noun: str) -> str:
    number = value if isinstance(value, int) else len(value or ())
    return f"{number} {noun}{'' if number == 1 else 's'}"


class PlainView:
    """One line an event, for logs and pipes; the title before the first."""

    def __init__(self, title: str = "", kind: str = "fine-tune") -> None:
        self._title, self._kind = title, kind
        self._stage = ""

    def on_data(self, row: Row) -> None:
        """Print what will be trained and kept."""
        self._say(*describe_data(row, kind=self._kind))

    def on_monitor(self, row: Row) -> None:
        """Print the curves' newest values."""
        self._say(describe_monitor(row))

    def on_solved(self, row: Row) -> None:
        """Print what a closed form changed."""
        self._say(describe_solved(row))

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Print the start of each stage of the preparation."""
        del done
        if stage != self._stage:
            self._stage = stage
            self._say(f"preparing  {_STAGES.get(stage, stage)} ({total})")

    def _say(self, *lines: str) -> None:
        for line in filter(None, [self._title, *lines]):
            say(line)
        self._title = ""


@dataclass
class CurvesView:
    """The title, a bar for each stage, and a curve for each number that the method watches."""

    title: str = ""
    bars: Progress = field(default_factory=lambda: _bars())
    curves: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    _tasks: dict[str, TaskID] = field(default_factory=dict)

    def on_step(self, row: Row) -> None:
        """Move the bar and show the loss."""
        self._advance("forgetting", row["step"], row["steps"], note=f"loss {row['loss']:.4f}")

    def on_monitor(self, row: Row) -> None:
        """Add a point to every curve."""
        for name in _WATCHED:
            if name in row:
                self.curves.setdefault(name, []).append(row[name])
                self.notes[name] = _since_start(name, row).strip(" ()")

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage of the preparation."""
        self._advance(stage, done, total)

    def render(self) -> RenderableType:
        """Return what the terminal shows now."""
        from rich.console import Group
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for name, words in _WATCHED.items():
            if values := self.curves.get(name):
                table.add_row(words, f"{values[-1]:.4f}", sparkline(values), self.notes[name])
        if not self._tasks and not self.curves:
            return Group()  # nothing has happened: an error that comes now stands alone
        return Group(*filter(None, [self.title]), self.bars, table)

    def _advance(self, stage: str, done: int, total: int, *, note: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(_STAGES.get(stage, stage), total=total, note="")
        self.bars.update(self._tasks[stage], completed=done, total=total, note=note)


def _bars(**options: Any) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        **options,
    )


@contextmanager
def progress_bar() -> Iterator[Any]:
    """Yield ``advance(stage, done, total)``: bars with the time left on a terminal, a line a stage elsewhere."""
    console = progress_console()
    if not console.is_terminal:
        yield PlainView().on_progress
        return
    view = CurvesView(bars=_bars(console=console, transient=True))
    with view.bars:
        yield view.on_progress
