"""The table of numbers, for a terminal, for markdown and for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aizheimer.evaluation.results import EvaluationResult, Metric, Pair
from aizheimer.reports.wording import counted, explanations, interval, judge_errors, percent

if TYPE_CHECKING:
    from rich.table import Table

NAMES = {
    "ua": "UA, forgotten",
    "ira": "IRA, other {kind}s kept",
    "near": "… near neighbours",
    "far": "… the others",
    "cra": "CRA, {other}s kept",
}


@dataclass(frozen=True)
class Row:
    """One line: a figure with the edit, without it, its interval and what it means."""

    name: str
    edited: str
    interval: str
    original: str
    n: str
    meaning: str


def rows(result: EvaluationResult) -> list[Row]:
    """Return the figures that were measured, most important first."""
    meaning = explanations(result)
    other = "object" if result.kind == "style" else "style"
    lines = []
    for key, name in NAMES.items():
        metric: Metric | None = getattr(result, key)
        if metric is not None:
            title = name.format(kind=result.kind, other=other)
            count = counted(metric.n, metric.unit.removesuffix("s"))
            values = (percent(metric.value), interval(metric), percent(metric.original))
            lines.append(Row(title, *values, count, meaning[key]))
            if key == "ua":
                lines += _judge_errors(result, meaning)
    for key, name in (("clip_target", "CLIP score, target"), ("clip_retain", "CLIP score, the rest")):
        pair: Pair | None = getattr(result, key)
        if pair is not None:
            lines.append(Row(name, f"{pair.edited:.1f}", "", f"{pair.original:.1f}", "", meaning[key]))
    lines.append(Row("Unchanged target pictures", percent(result.unchanged_share), "", "", "", meaning["unchanged"]))
    broken = result.broken
    lines.append(Row("Blank or noise", percent(broken.edited), "", percent(broken.original), "", meaning["broken"]))
    if (kept := result.broken_retain) is not None:
        shares = percent(kept.edited), "", percent(kept.original)
        lines.append(Row("… of what was to be kept", *shares, "", meaning["broken_retain"]))
    return lines


def _judge_errors(result: EvaluationResult, meaning: dict[str, str]) -> list[Row]:
    """Return how often the judge of UA errs without any edit, which every UA must be read against."""
    return [
        Row(name, "", interval(share), percent(share.value), counted(share.n, "image"), meaning[key])
        for key, name, share in judge_errors(result.calibration)
    ]


def result_table(result: EvaluationResult) -> Table:
    """Return the numbers and the neighbours as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"“{escape(result.target)}”, edited and unedited", title_justify="left")
    table.add_column("")
    for heading in ("edited", f"{result.settings.level:.0%} interval", "unedited", "of"):
        table.add_column(heading, justify="right")
    lines = rows(result)
    for i, row in enumerate(lines):
        last = i == len(lines) - 1
        table.add_row(row.name, row.edited, row.interval, row.original, row.n, end_section=last)
    for near in result.neighbours:
        values = (percent(near.edited), "", percent(near.original), counted(near.n, "image"))
        table.add_row(f"  {escape(near.label)}", *values)
    if result.warnings:
        table.caption = "\n".join(escape(line) for line in result.warnings)
        table.caption_justify = "left"
    return table


def markdown_table(result: EvaluationResult) -> str:
    """Return the numbers as a markdown table, ending in a newline."""
    head = f"| | edited | {result.settings.level:.0%} interval | unedited | of |\n|---|---:|---:|---:|---:|\n"
    cells = ((r.name, r.edited, r.interval, r.original, r.n) for r in rows(result))
    return head + "".join("| " + " | ".join(_cell(c) for c in row) + " |\n" for row in cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
