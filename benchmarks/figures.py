"""What the benchmarks' pictures share."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, *, pad: float = 1.08) -> None:
    """Write a figure, its parts as near to each other as their words allow.

    Args:
        figure: The figure.
        path: Where to; its folder is made.
        pad: Space around parts, in letters; matplotlib's own by default.
    """
    figure.tight_layout(pad=pad)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
