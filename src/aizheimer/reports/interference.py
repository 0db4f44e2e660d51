"""Edits in company as a table and as a picture: rows are edits, columns are targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aizheimer.evaluation.interference import Interference
from aizheimer.reports.plots import save_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

CELL, MARGIN = 0.42, 3.4
"""Inches of a cell, and of the names beside the matrix."""
LONGEST = 26
"""Letters of a name that are shown."""
NUMBERED = 24
"""Most columns whose cells have their number in them."""


def interference_table(found: Interference) -> Table:
    """Return a line for each target: forgotten alone, in company, and what its edit takes from the others."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("target")
    for head in ("unedited", "UA alone", "in company", "takes most from", "kept alone"):
        table.add_column(head, justify="left" if head == "takes most from" else "right")
    for target, edit in found.owner.items():
        others = [other for other in found.owner if found.owner[other] != edit]
        worst = max(others, key=lambda other: found.lost(edit, other), default="")
        taken = found.lost(edit, worst) if worst else 0.0
        said = f"{worst} ({_points(-taken)})" if taken > 0 else "none"
        kept = found.retained_alone[edit].value - found.retained_unedited.value
        table.add_row(
            target, f"{found.unedited[target].value:.0%}", f"{found.alone(target):.0%}",
            f"{found.together(target):.0%}", said, _points(kept),
        )  # fmt: skip
    return table


def interference_summary(found: Interference) -> str:
    """Return what became of the rest under all edits together, in one line."""
    kept, plain = found.retained_company, found.retained_unedited
    low, high = kept.interval
    return (
        f"all {len(found.edits)} together: UA {np.mean([found.together(t) for t in found.owner]):.0%} on average, "
        f"{min(found.together(t) for t in found.owner):.0%} at least; of {kept.n} other objects {kept.value:.0%} are "
        f"right ({low:.0%} to {high:.0%}), {plain.value:.0%} unedited"
    )


def save_interference_picture(found: Interference, path: str | Path) -> Path:
    """Draw the matrix and write it as a picture."""
    return save_plot(interference_picture(found), Path(path))


def interference_picture(found: Interference) -> Figure:
    """Draw what each edit takes of every target, with all edits together and the retained objects beside it.

    A framed cell is an edit's own target: that should be dark. All others should be light.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    targets = list(found.owner)
    rows = [[found.lost(edit, target) for target in targets] for edit in found.edits]
    rows.append([found.unedited[target].value - found.company[target].value for target in targets])
    plain = found.retained_unedited.value
    kept = [plain - found.retained_alone[edit].value for edit in found.edits] + [plain - found.retained_company.value]
    values = np.column_stack([np.array(rows), np.array(kept)])
    columns = [*map(_short, targets), f"{found.retained_unedited.n} others"]
    names = [*map(_short, found.edits), "all together"]
    size = (MARGIN + CELL * len(columns) + 0.8, MARGIN - 0.4 + CELL * len(names))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="RdYlBu_r", vmin=-1, vmax=1, aspect="equal")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set(xlabel="whose pictures", ylabel="which edit")
    axes.set_title("Pictures an edit takes away, in points", loc="left", fontsize=11)
    axes.axvline(len(targets) - 0.5, color="white", linewidth=4)
    axes.axhline(len(found.edits) - 0.5, color="white", linewidth=4)
    for y, edit in enumerate(found.edits):
        for x, target in enumerate(targets):
            if found.owner[target] == edit:
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#1d1b18", linewidth=1.6))
    if len(columns) <= NUMBERED:
        for (y, x), value in np.ndenumerate(values):
            colour = "white" if abs(value) > 0.7 else "#1d1b18"
            axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.ax.set_yticklabels(["100 more", "50 more", "none", "50 taken", "100 taken"], fontsize=8)
    bar.outline.set_visible(False)
    return figure


def _points(change: float) -> str:
    return f"{100 * change:+.0f} points" if round(100 * change) else "as before"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
