"""A suite's figures and tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aizheimer.evaluation.results import Metric
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.reports.wording import counted, distance_interval, ends, judge_errors, measured_by, number

if TYPE_CHECKING:
    from rich.table import Table

ROWS_SHOWN = 12
"""Longer tables are in the file."""


def suite_tables(result: SuiteResult) -> list[Table]:
    """Return the figures with their intervals, then each of the suite's own tables."""
    from rich.markup import escape
    from rich.table import Table

    figures = Table(title=f"{result.suite}: “{escape(result.target)}”, edited and unedited", title_justify="left")
    figures.add_column("")
    for heading in ("edited", f"{result.settings.level:.0%} interval", "unedited", "of"):
        figures.add_column(heading, justify="right")
    for name, metric in result.figures.items():
        figures.add_row(escape(name), *_cells(metric))
    for _, name, share in judge_errors(result.calibration):
        low, high = share.interval
        figures.add_row(name, "", f"{low:.3f} to {high:.3f}", f"{share.value:.3f}", counted(share.n, "image"))
    for name, found in result.distances.items():
        cells = number(found.value), distance_interval(found), number(found.original), counted(found.n, "image")
        figures.add_row(escape(name), *cells)
    protocols = [f"{name}: a distance {measured_by(found)}" for name, found in result.distances.items()]
    if notes := [*protocols, *result.warnings]:
        figures.caption = "\n".join(escape(line) for line in notes)
        figures.caption_justify = "left"
    return [figures, *(_table(title, rows) for title, rows in result.tables.items() if rows)]


def _cells(metric: Metric) -> tuple[str, str, str, str]:
    low, high = ends(metric)
    count = counted(metric.n, metric.unit.removesuffix("s"))
    return f"{metric.value:.3f}", f"{low:.3f} to {high:.3f}", f"{metric.original:.3f}", count


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return rows of JSON values as a table; a column for each key that any row has."""
    from rich.markup import escape
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        numbers = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numbers else "left", overflow="fold")
    for row in rows[:ROWS_SHOWN]:
        table.add_row(*(escape(_cell(row.get(column))) for column in columns))
    if len(rows) > ROWS_SHOWN:
        table.caption = f"and {len(rows) - ROWS_SHOWN} more in the file"
        table.caption_justify = "left"
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
