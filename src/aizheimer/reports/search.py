"""A search as a picture: what each trial forgot against what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aizheimer.reports.plots import COLOURS, INK, LINE, canvas, front_of, save_plot


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """One trial.

    Args:
        forgotten: The first demanded quantity.
        cost: What is minimised.
        state: "measured", "pruned" or "chosen".
        met: Whether it meets all demands.
    """

    forgotten: float
    cost: float
    state: str
    met: bool


def save_search_picture(
    points: Sequence[SearchPoint], path: Path, *, demand: tuple[str, str, float], cost: str, title: str
) -> Path:
    """Plot trials with the demand's bound, the front that no trial beats, and the chosen one.

    Args:
        points: The trials; those without values are left out beforehand.
        path: The PNG.
        demand: Label, sense and bound of the first demand.
        cost: Label of what is minimised.
        title: What was searched.
    """
    label, sense, bound = demand
    figure, axes = canvas(title)
    styles: dict[str, dict[str, Any]] = {
        "pruned": {"marker": "x", "color": INK, "label": "pruned after few pictures"},
        "missed": {"marker": "o", "color": COLOURS[1], "label": "misses a demand"},
        "met": {"marker": "o", "color": COLOURS[0], "label": "meets all demands"},
        "chosen": {"marker": "*", "color": COLOURS[0], "s": 220, "edgecolor": INK, "label": "chosen"},
    }
    for kind, style in styles.items():
        own = [point for point in points if _kind(point) == kind]
        if own:
            axes.scatter([p.forgotten for p in own], [p.cost for p in own], zorder=3, **style)
    sign = 1.0 if sense == ">=" else -1.0
    whole = {str(i): (sign * p.forgotten, -p.cost) for i, p in enumerate(points) if p.state != "pruned"}
    front = sorted((points[int(i)].forgotten, points[int(i)].cost) for i in front_of(whole))
    axes.plot([x for x, _ in front], [y for _, y in front], color=LINE, linewidth=2, zorder=1, label="front")
    axes.axvline(bound, color=INK, linewidth=0.8, linestyle=":", label=f"{label} {sense} {bound:g}")
    axes.set(xlabel=label, ylabel=cost)
    axes.legend(frameon=False, fontsize=8)
    return save_plot(figure, path)


def _kind(point: SearchPoint) -> str:
    if point.state != "measured":
        return point.state
    return "met" if point.met else "missed"
