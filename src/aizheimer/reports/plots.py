"""Several edits as plots: forgotten against kept, damage by nearness, and what attacks bring back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aizheimer._files import atomic
from aizheimer.attacks.results import AttackResult
from aizheimer.evaluation.results import EvaluationResult, Metric
from aizheimer.reports.wording import ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0d6e66", "#b3430f", "#3b5b92", "#8a6d00", "#7a3b78", "#4d7c0f", "#a3333d", "#5c5346")
MARKERS = "osD^vP*X"
INK, LINE = "#1d1b18", "#e3ddd2"


def pareto(results: Mapping[str, EvaluationResult]) -> Figure | None:
    """Plot UA against IRA with the intervals of both; the upper right corner is where one wants to be.

    Runs that no other beats in both are joined by a line.

    Args:
        results: Evaluations by name.

    Returns:
        The figure; None if no run has both.
    """
    both = {name: (r.ua, r.ira) for name, r in results.items() if r.ua is not None and r.ira is not None}
    if not both:
        return None
    figure, axes = canvas("Forgotten against kept")
    for i, (name, (ua, ira)) in enumerate(both.items()):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        axes.errorbar(
            _percent(ua.value), _percent(ira.value), xerr=_bars(ua), yerr=_bars(ira), label=name, capsize=3, **style
        )
    points = {name: (ua.value, ira.value) for name, (ua, ira) in both.items()}
    front = sorted(points[name] for name in front_of(points))
    axes.plot([_percent(x) for x, _ in front], [_percent(y) for _, y in front], color=LINE, zorder=0)
    original = next(iter(both.values()))[1].original
    axes.axhline(_percent(original), color=INK, linewidth=0.8, linestyle=":", label="IRA of the unedited model")
    axes.set(xlabel="UA, % of target pictures without the target", ylabel="IRA, % of other concepts named right")
    axes.set(xlim=_window([ua for ua, _ in both.values()]), ylim=_window([ira for _, ira in both.values()]))
    figure.legend(frameon=False, loc="outside right upper", fontsize=8)
    return figure


def front_of(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of the points that no other beats: none is at least as good in both and better in one.

    Example:
        >>> front_of({"a": (1.0, 0.5), "b": (0.5, 1.0), "c": (0.5, 0.5)})
        ['a', 'b']
    """
    return [
        name
        for name, (x, y) in points.items()
        if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in points.values())
    ]


def damage(results: Mapping[str, EvaluationResult]) -> Figure | None:
    """Plot what is left of each near neighbour's accuracy against its similarity to the target.

    Args:
        results: Evaluations by name; the neighbours are the same in all.

    Returns:
        The figure; None if no neighbour was judged.
    """
    curves = {name: _curve(result) for name, result in results.items()}
    if not any(curves.values()):
        return None
    figure, axes = canvas("Damage to neighbours, the nearest at the right")
    for i, (name, points) in enumerate(curves.items()):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        axes.plot([x for x, _ in points], [_percent(y) for _, y in points], label=name, **style)
    first = next(result for result in results.values() if result.neighbours)
    before = [(near.similarity, near.original) for near in first.neighbours if near.similarity is not None]
    axes.plot(
        [x for x, _ in sorted(before)], [_percent(y) for _, y in sorted(before)],
        color=INK, linewidth=0.8, linestyle=":", label="unedited model",
    )  # fmt: skip
    axes.set(xlabel="similarity to the target, cosine of text embeddings", ylabel="named right, %", ylim=(-4, 104))
    axes.legend(frameon=False, fontsize=8)
    return figure


def attack_bars(attacks: Mapping[str, Mapping[str, AttackResult]]) -> Figure | None:
    """Plot the attack success rate of each attack on each run, with the rate before it and the unedited model's.

    Args:
        attacks: By run, then by attack.

    Returns:
        The figure; None if no run was attacked.
    """
    names = list(dict.fromkeys(name for own in attacks.values() for name in own))
    if not names:
        return None
    figure, axes = canvas("What attacks bring back", width=max(6.4, 3.0 + 0.4 * len(names) * len(attacks)))
    width = 0.8 / len(attacks)
    for i, (run, own) in enumerate(attacks.items()):
        for k, name in enumerate(names):
            if name not in own:
                continue
            result, left = own[name], k - 0.4 + i * width
            label = run if name == next(iter(own)) else None
            axes.bar(
                left, _percent(result.asr.value), width, align="edge", color=COLOURS[i % len(COLOURS)], label=label
            )
            low, high = (_percent(end) for end in ends(result.asr))
            axes.plot([left + width / 2] * 2, [low, high], color=INK, linewidth=1)
            axes.plot([left, left + width], [_percent(result.before.value)] * 2, color=INK, linewidth=2)
            if result.unedited is not None:
                axes.plot([left, left + width], [_percent(result.unedited.value)] * 2, color=INK, linestyle=":")
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.set(ylabel="pictures that show the target, %", ylim=(0, 104))
    axes.plot([], [], color=INK, linewidth=2, label="without the attack")
    axes.plot([], [], color=INK, linestyle=":", label="same attack on the unedited model")
    figure.legend(frameon=False, loc="outside right upper", fontsize=8)
    return figure


def save_plot(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, all of it or nothing."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return path


def canvas(title: str, *, width: float = 6.4) -> tuple[Figure, Axes]:
    """Return a figure of our own, with no global state of pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(width, 16.0), 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _percent(value: float) -> float:
    return 100 * value


def _window(metrics: Sequence[Metric]) -> tuple[float, float]:
    """Return the ends of an axis up to 100 % that shows these with their intervals, and no empty half below."""
    lowest = min(_percent(min(ends(metric)[0], metric.value)) for metric in metrics)
    return min(lowest, 80.0) - 4, 104


def _bars(metric: Metric) -> Sequence[Sequence[float]]:
    """Return how far the interval reaches to either side, as matplotlib wants it."""
    low, high = ends(metric)
    return [[max(0.0, _percent(metric.value - low))], [max(0.0, _percent(high - metric.value))]]


def _curve(result: EvaluationResult) -> list[tuple[float, float]]:
    return sorted((near.similarity, near.edited) for near in result.neighbours if near.similarity is not None)
