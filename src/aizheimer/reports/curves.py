"""Loss curves as inline SVG: they scale, they follow the page's colours, and need no script."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 30

TITLES = {
    "loss": ("Total loss", "what the training step minimised"),
    "attention": ("Attention loss", "how much the concept's tokens are still attended to, as the loss counts it"),
    "erase": ("Erasing loss", "how far predictions for the concept still are from what they should become"),
    "correlation": ("Correlation", "what the concept adds to a picture against what it used to add; 0 is forgotten"),
    "deceive": ("Deceiving loss", "how well a discriminator still tells the concept's pictures from its anchor's"),
    "discriminator": ("Discriminator's loss", "how badly the discriminator tells both apart"),
    "forget": ("Reconstruction loss, forget set", "how badly the concept's own pictures are denoised"),
    "retain": ("Reconstruction loss, retain set", "how badly pictures to keep are denoised"),
    "noise": ("Denoising loss", "how badly pictures to keep are denoised"),
    "teacher": ("Teacher loss", "how far predictions for prompts to keep have moved from the unedited model's"),
    "l1": ("Size of the change", "mean absolute change of the weights, as the loss counts it"),
    "anchor": ("Anchor loss", "how far the concept still is from what takes its place"),
    "mass_ratio": ("Attention on the target", "held-out attention to the concept, 1 = as before training"),
    "erase_error": (
        "Distance to the target",
        "held-out predictions for the concept, 1 = as before, 0 = arrived",
    ),
    "forget_drift": ("Change of what is forgotten", "held-out change of predictions for the concept, 0 = none"),
    "retention_drift": ("Drift of what is kept", "held-out change of predictions for prompts to keep, 0 = none"),
    "cosine": ("Erasing against keeping", "cosine of the two gradients, below 0 = they disagree"),
}
"""Heading and explanation of what methods log; a name that is not here is its own heading."""

NOT_CURVES = {"event", "step", "steps", "seconds", "layers", "best_step", "attention_mass"}
"""What rows of the monitor hold beside curves; the attention mass is shown by its ratio to the start."""


@dataclass(frozen=True)
class Chart:
    """One curve.

    Attributes:
        title: Heading.
        subtitle: What it shows, in plain words.
        steps: (n,) optimiser steps.
        values: (n,) finite numbers.
        kept_step: The step whose weights became the edit, None if unknown.
    """

    title: str
    subtitle: str
    steps: Sequence[float]
    values: Sequence[float]
    kept_step: int | None = None


def charts_from_history(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return the curves that a run's history holds, whatever its method calls them.

    The total loss comes first, then each of its terms if there are several, what was watched on held-out examples, and
    the cosine between the gradients of erasing and of keeping.

    Args:
        history: Rows of ``history.jsonl``. Numbers that are missing or not finite are left out; a curve needs two
            points.
    """
    stops = [row.get("kept_step") for row in history if row.get("event") == "stop"]
    steps = [row for row in history if row.get("event", "step") == "step"]
    monitors = [row for row in history if row.get("event") == "monitor"]
    terms = _names(row.get("losses", {}) for row in steps)
    curves = [("loss", _points(steps, "loss"))]
    if len(terms) > 1:
        inner = [{"step": row.get("step"), **row.get("losses", {})} for row in steps]
        curves += [(name, _points(inner, name)) for name in terms]
    curves += [(name, _points(monitors, name)) for name in _names(monitors) if name not in NOT_CURVES]
    curves.append(("cosine", _points(steps, "cosine")))
    return [_chart(name, points, stops[-1] if stops else None) for name, points in curves if len(points) > 1]


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    pairs = [(row.get("step"), row.get(name)) for row in rows]
    return [(float(x), float(y)) for x, y in pairs if _finite(x) and _finite(y)]


def _chart(name: str, points: Sequence[tuple[float, float]], kept: int | None) -> Chart:
    title, subtitle = TITLES.get(name, (name.replace("_", " ").capitalize(), "as the method logged it"))
    return Chart(title, subtitle, [x for x, _ in points], [y for _, y in points], kept)


def svg(chart: Chart) -> str:
    """Return the chart as an SVG element; long noisy curves get a smoothed line over the raw one.

    Colours come from the page: ``currentColor`` and the classes ``raw``, ``line``, ``grid`` and ``kept``.
    """
    low, high = _range(chart.values)
    first, last = min(chart.steps), max(chart.steps)

    def x(step: float) -> float:
        return LEFT + (step - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(values: Sequence[float], name: str) -> str:
        points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(chart.steps, values, strict=True))
        return f'<polyline class="{name}" points="{points}"/>'

    label = html.escape(f"{chart.title}: from {_number(chart.values[0])} to {_number(chart.values[-1])}", quote=True)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for tick in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for step, anchor in ((first, "start"), (last, "end")):
        text = f"step {step:g}" if step == first else f"{step:g}"
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text}</text>')
    if chart.kept_step is not None and first <= chart.kept_step <= last:
        at = x(chart.kept_step)
        parts.append(f'<line class="kept" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    if len(chart.values) > 40:
        parts += [path(chart.values, "raw"), path(_smooth(chart.values), "line")]
    else:
        parts.append(path(chart.values, "line"))
    return "".join([*parts, "</svg>"])


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _smooth(values: Sequence[float]) -> list[float]:
    """Return running means over a window of a fifteenth of the curve, shorter at the ends."""
    half = max(1, len(values) // 30)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the axis' ends: from 0 where the values are near it, with a little room above."""
    low, high = min(values), max(values)
    if 0 <= low < 0.6 * high:
        low = 0.0
    room = (high - low) or abs(high) or 1.0
    return (low if low == 0 else low - 0.05 * room), high + 0.05 * room


def _ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers between the ends."""
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:.3g}"
