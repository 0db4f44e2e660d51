"""One HTML file that holds all of a report: no second file, no request, no script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aizheimer._files import write_text
from aizheimer._version import __version__
from aizheimer.attacks.results import AttackResult
from aizheimer.evaluation.results import EvaluationResult, Metric, NeighbourResult
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.proof.verdict import FAULTS
from aizheimer.reports import wording
from aizheimer.reports.attacks import notes, spent
from aizheimer.reports.curves import charts_from_history, svg
from aizheimer.reports.grid import GROUPS, GridColumn
from aizheimer.reports.heatmaps import HeatmapPair, overlay
from aizheimer.reports.pictures import data_uri, enlarge
from aizheimer.reports.release import Release
from aizheimer.reports.suite_tables import page_tables
from aizheimer.reports.table import rows

if TYPE_CHECKING:
    from jinja2 import Template

PIXELATED_BELOW = 160
"""Pictures narrower than this are enlarged in hard pixels; a browser may smooth larger ones."""

LARGEST = 384
"""Wider pictures are shrunk to this many pixels, so that the file can be mailed."""


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows.

    Attributes:
        result: The evaluation.
        columns: The grid, groups together.
        heatmaps: Attention to the target before and after.
        history: Rows of ``history.jsonl``, empty for an edit without training.
        provenance: Of the edit, as JSON values.
        recipe: Hyper-parameters, as JSON values.
        environment: Versions and machine, as JSON values.
        suites: What further suites found, by name.
        attacks: What attacks brought back, by name.
        release: What a gate and a certificate say.
        parts: What an edit that is a sum is made of, in words.
    """

    result: EvaluationResult
    columns: Sequence[GridColumn]
    heatmaps: Sequence[HeatmapPair] = ()
    history: Sequence[Mapping[str, Any]] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    suites: Mapping[str, SuiteResult] = field(default_factory=dict)
    attacks: Mapping[str, AttackResult] = field(default_factory=dict)
    release: Release = field(default_factory=Release)
    parts: Sequence[str] = ()


def render(content: ReportContent) -> str:
    """Return the report as HTML. All text that came from outside is escaped."""
    result = content.result
    return _template().render(
        result=result,
        version=__version__,
        headline=wording.headline(result),
        groups=_groups(content),
        pixelated=bool(content.columns) and content.columns[0].original.shape[1] < PIXELATED_BELOW,
        metrics=_metrics(result),
        rows=rows(result),
        neighbours=[_bars(neighbour) for neighbour in result.neighbours],
        others=[_bars(other) for other in result.others],
        charts=[(chart, svg(chart)) for chart in charts_from_history(content.history)],
        heatmaps=[_heatmap(pair) for pair in content.heatmaps],
        suites=content.suites,
        attacks=content.attacks,
        attack_notes=notes(list(content.attacks.values())),
        release=content.release,
        faults=FAULTS,
        parts=content.parts,
        details=_details(content),
    )


def write_report(path: str | Path, content: ReportContent) -> Path:
    """Write the report, all of it or nothing, and return where it is."""
    write_text(Path(path), render(content))
    return Path(path)


@cache
def _template() -> Template:
    """Read the page's template; a name it uses and does not get is an error."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = wording.percent
    environment.filters["interval"] = wording.interval
    environment.filters |= {"judge_errors": wording.judge_errors, "page_tables": page_tables, "spent": spent}
    environment.filters |= wording.DISTANCE_FILTERS
    text = resources.files("aizheimer.reports").joinpath("templates/report.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def _groups(content: ReportContent) -> list[dict[str, Any]]:
    target, kind = content.result.target, content.result.kind
    texts = {
        GROUPS["target"]: (f"Asked for “{target}”", "These should change."),
        GROUPS["neighbour"]: (f"The nearest other {kind}s", "These suffer first. They should stay."),
        GROUPS["other"]: (f"Unrelated {kind}s", "These should stay."),
    }
    groups = []
    for name, columns in groupby(content.columns, key=lambda column: column.group):
        title, hint = texts.get(name, (name, ""))
        groups.append({"title": title, "hint": hint, "columns": [_column(c) for c in columns]})
    return groups


def _column(column: GridColumn) -> dict[str, Any]:
    cells = (
        {"row": "original", "uri": _embed(column.original), "seen": column.seen_original, "verdict": ""},
        {
            "row": "edited",
            "uri": _embed(column.edited),
            "seen": column.seen_edited,
            "verdict": {True: "good", False: "bad", None: ""}[column.good],
        },
    )
    return {"prompt": column.prompt, "seed": column.seed, "cells": cells, "judged": column.judged}


def _embed(image: Any) -> str:
    return data_uri(image if image.shape[1] <= LARGEST else enlarge(image, edge=LARGEST))


def _metrics(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the three figures of the head of the numbers."""
    other = "object" if result.kind == "style" else "style"
    titles = {"ua": "Forgotten", "ira": f"Other {result.kind}s kept", "cra": f"{other.capitalize()}s kept"}
    measured = [(key, title, getattr(result, key)) for key, title in titles.items()]
    return [_figure(key, title, metric) for key, title, metric in measured if metric is not None]


def _figure(key: str, title: str, metric: Metric) -> dict[str, Any]:
    low, high = wording.ends(metric)
    return {
        "short": key.upper(),
        "title": title,
        "metric": metric,
        "interval": wording.interval(metric),
        "change": wording.points(metric.change),
        "left": f"{100 * low:.1f}%",
        "width": f"{100 * (high - low):.1f}%",
        "caution": wording.caution(metric),
    }


def _bars(concept: NeighbourResult) -> dict[str, Any]:
    lost = concept.original - concept.edited
    return {
        "concept": concept,
        "original": f"{100 * concept.original:.1f}%",
        "edited": f"{100 * concept.edited:.1f}%",
        "count": f"{round(concept.original * concept.n)} → {round(concept.edited * concept.n)} of {concept.n}",
        "verdict": "bad" if lost > 0 else "good",
    }


def _heatmap(pair: HeatmapPair) -> dict[str, Any]:
    return {
        "pair": pair,
        "cells": [
            ("original", _embed(pair.original), data_uri(overlay(pair.original, pair.original_heat, peak=pair.peak)),
             f"{100 * float(pair.original_heat.mean()):.2f}%"),
            ("edited", _embed(pair.edited), data_uri(overlay(pair.edited, pair.edited_heat, peak=pair.peak)),
             f"{100 * float(pair.edited_heat.mean()):.2f}%"),
        ],
        "peak": f"{100 * pair.peak:.1f}%",
    }  # fmt: skip


def _details(content: ReportContent) -> list[tuple[str, str]]:
    """Return the folded blocks at the end: heading and JSON text."""
    settings = {**content.result.settings.model_dump(), "guidance": content.result.guidance}
    blocks = (
        ("How it was measured", settings),
        ("Where the edit comes from", content.provenance),
        ("Recipe, every parameter", content.recipe),
        ("Versions and machine", content.environment),
    )
    return [(title, json.dumps(block, indent=2, ensure_ascii=False, default=str)) for title, block in blocks if block]
