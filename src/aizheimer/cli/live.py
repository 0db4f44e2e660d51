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
}
"""What the stages' own names mean to a user."""


@contextmanager
def training_view(title: str) -> Iterator[Callbacks]:
    """Yield the callbacks of a live view on stderr: curves on a terminal, one line a look elsewhere.

    Args:
        title: Said when the first event arrives, so that bad input is answered by its error alone.
    """
    from aizheimer.engine.callbacks import Callbacks

    console = progress_console()
    if not console.is_terminal:
        lines = PlainView(title)
        yield Callbacks(on_monitor=lines.on_monitor, on_data=lines.on_data, on_progress=lines.on_progress)
        return

    from rich.live import Live

    curves = CurvesView(title)
    with Live(get_renderable=curves.render, console=console, refresh_per_second=8) as live:

        def on_data(row: Row) -> None:
            for line in describe_data(row):
                live.console.print(line)

        yield Callbacks(
            on_step=curves.on_step, on_monitor=curves.on_monitor, on_data=on_data, on_progress=curves.on_progress
        )


def describe_data(row: Row) -> list[str]:
    """Say in a few lines what will be trained, and which neighbours will be kept."""
    lines = []
    if kept := row.get("kept"):
        lines.append(f"keeping    {', '.join(kept)} (asked for)")
    if neighbours := row.get("neighbours"):
        named = [f"{label} {similarity:.2f}" for label, similarity in neighbours[:_NEIGHBOURS_SHOWN]]
        more = len(neighbours) - len(named)
        lines.append(f"keeping    {', '.join(named)}{f' and {more} more' if more > 0 else ''} (nearest, by cosine)")
    forget, retain = len(row.get("forget_prompts", ())), len(row.get("retain_prompts", ()))
    text = row.get("network") == "text_encoder"
    where = "of the text encoder" if text else f"in {_count(row.get('layers'), 'attention layer')}"
    lines.append(
        f"training   {_count(row.get('parameters'), 'tensor')} {where}, "
        f"on {forget} prompts to forget and {retain} to retain"
    )
    return lines


def describe_monitor(row: Row) -> str:
    """Say in one line what a look at the held-out set found."""
    found = [f"step {row['step']}/{row['steps']}"]
    if "attention_mass" in row:
        found.append(f"attention mass {row['attention_mass']:.4f} ({row['mass_ratio']:.0%} of its start)")
    if "erase_error" in row:
        found.append(f"distance to the target {row['erase_error']:.4f}")
    if "retention_drift" in row:
        found.append(f"retention drift {row['retention_drift']:.4f}")
    return "  ".join(found)


def _count(value: Any, noun: str) -> str:
    number = value if isinstance(value, int) else len(value or ())
    return f"{number} {noun}{'' if number == 1 else 's'}"


class PlainView:
    """One line an event, for logs and pipes; the title before the first."""

    def __init__(self, title: str = "") -> None:
        self._title = title
        self._stage = ""

    def on_data(self, row: Row) -> None:
        """Print what will be trained and kept."""
        self._say(*describe_data(row))

    def on_monitor(self, row: Row) -> None:
        """Print the curves' newest values."""
        self._say(describe_monitor(row))

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
    """The title, a bar for each stage, and a curve each for attention mass and retention drift."""

    title: str = ""
    bars: Progress = field(default_factory=lambda: _bars())
    mass: list[float] = field(default_factory=list)
    drift: list[float] = field(default_factory=list)
    mass_ratio: float = 1.0
    _tasks: dict[str, TaskID] = field(default_factory=dict)

    def on_step(self, row: Row) -> None:
        """Move the bar and show the loss."""
        self._advance("forgetting", row["step"], row["steps"], note=f"loss {row['loss']:.4f}")

    def on_monitor(self, row: Row) -> None:
        """Add a point to both curves."""
        if "attention_mass" in row:
            self.mass.append(row["attention_mass"])
            self.mass_ratio = row["mass_ratio"]
        if "retention_drift" in row:
            self.drift.append(row["retention_drift"])

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage of the preparation."""
        self._advance(stage, done, total)

    def render(self) -> RenderableType:
        """Return what the terminal shows now."""
        from rich.console import Group
        from rich.table import Table

        curves = Table.grid(padding=(0, 2))
        if self.mass:
            curves.add_row(
                "attention mass", f"{self.mass[-1]:.4f}", sparkline(self.mass), f"{self.mass_ratio:.0%} of its start"
            )
            curves.add_row("retention drift", f"{self.drift[-1]:.4f}", sparkline(self.drift), "")
        if not self._tasks and not self.mass:
            return Group()  # nothing has happened: an error that comes now stands alone
        return Group(*filter(None, [self.title]), self.bars, curves)

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
