"""Loss curves as inline SVG: they scale, they follow the page's colours, and need no script."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 30

TITLES = {
    "loss": ("Total loss", "what the training step minimised"),
    "attention": ("Attention loss", "how much the concept's tokens are still attended to, as the loss counts it"),
    "forget": ("Reconstruction loss, forget set", "how badly the concept's own pictures are denoised"),
    "retain": ("Reconstruction loss, retain set", "how badly pictures to keep are denoised"),
    "teacher": ("Teacher loss", "how far predictions for prompts to keep have moved from the unedited model's"),
    "anchor": ("Anchor loss", "how far the concept still is from what takes its place"),
    "mass_ratio": ("Attention on the target", "held-out attention to the concept, 1 = as before training"),
    "retention_drift": ("Drift of what is kept", "held-out change of predictions for prompts to keep, 0 = none"),
}


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
    """Return the curves that a run's history holds: the total loss, each term, and the two held-out numbers.

    Rows are those of ``history.jsonl``. Numbers that are missing or not finite are left out; a curve needs two points.
    """
    stops = [row.get("kept_step") for row in history if row.get("event") == "stop"]
    kept = stops[-1] if stops else None
    steps = [row for row in history if row.get("event", "step") == "step"]
    monitors = [row for row in history if row.get("event") == "monitor"]
    terms = list(dict.fromkeys(name for row in steps for name in row.get("losses", {})))
    curves = [("loss", [(row.get("step"), row.get("loss")) for row in steps])]
    if len(terms) > 1:
        curves += [(name, [(row.get("step"), row.get("losses", {}).get(name)) for row in steps]) for name in terms]
    for name in ("mass_ratio", "retention_drift"):
        curves.append((name, [(row.get("step"), row.get(name)) for row in monitors]))
    charts = []
    for name, points in curves:
        sound = [(float(x), float(y)) for x, y in points if _finite(x) and _finite(y)]
        if len(sound) > 1:
            title, subtitle = TITLES.get(name, (name.replace("_", " "), "one term of the loss"))
            charts.append(Chart(title, subtitle, [x for x, _ in sound], [y for _, y in sound], kept))
    return charts


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
