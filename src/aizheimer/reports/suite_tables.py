"""A suite's figures and tables, for a terminal and for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aizheimer.evaluation.results import Metric
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.reports.wording import counted, distance_interval, ends, judge_errors, measured_by, number

if TYPE_CHECKING:
    from rich.table import Table

ROWS_SHOWN = 12
"""Longer tables are in the file."""
FEW = 2
"""In longer tables, what all rows agree in is said once."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Rows of JSON values as words.

    Attributes:
        columns: Each shown key's words, row by row.
        numbers: The columns that hold numbers only.
        notes: What is the same in every row, said once.
    """

    columns: dict[str, list[str]]
    numbers: frozenset[str]
    notes: list[str]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The words, row by row."""
        return list(zip(*self.columns.values(), strict=True))


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
    """Return rows of JSON values as a table; a column for each key that any row has.

    What is the same in every row is said below the table, and only the column of the longest words may wrap, so that
    a table of many columns can be read in a narrow terminal.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    found = layout(rows)
    widest = max(found.columns, key=lambda column: max(map(len, found.columns[column])), default=None)
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in found.columns:
        heading, side = column.replace("_", "\n"), "right" if column in found.numbers else "left"
        table.add_column(heading, justify=side, overflow="fold", no_wrap=column != widest)
    for row in found.rows[:ROWS_SHOWN]:
        table.add_row(*map(escape, row))
    notes = [*found.notes, *([f"and {len(rows) - ROWS_SHOWN} more in the file"] if len(rows) > ROWS_SHOWN else [])]
    if notes:
        table.caption = escape("; ".join(notes))
        table.min_width = min(len(table.caption), 60)  # a caption is no wider than its table
        table.caption_justify = "left"
    return table


def layout(rows: list[dict[str, Any]]) -> Layout:
    """Return a column for each key that any row has, without those that say the same everywhere.

    Example:
        >>> found = layout([{"concept": name, "pictures": 3, "edited": 1.0} for name in ("cat", "dog", "fox")])
        >>> found.rows, found.notes
        ([('cat', '1.000'), ('dog', '1.000'), ('fox', '1.000')], ['pictures: 3'])
    """
    cells = {
        column: [_cell(row.get(column)) for row in rows] for column in dict.fromkeys(key for row in rows for key in row)
    }
    figures = {column for column in cells if any(isinstance(row.get(column), float) for row in rows)}
    alike = {
        column: values[0]
        for column, values in cells.items()
        if len(rows) > FEW and len(set(values)) == 1 and column not in figures
    }
    if len(alike) == len(cells):
        alike = {}
    return Layout(
        columns={column: values for column, values in cells.items() if column not in alike},
        numbers=frozenset(c for c in cells if all(isinstance(row.get(c), int | float | None) for row in rows)),
        notes=[f"{column.replace('_', ' ')}: {value}" for column, value in alike.items() if value],
    )


def page_tables(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a suite's own tables for a page: as `layout` has them, but one or two rows turned into columns.

    Returns:
        Of each table its title, headings, rows of words, notes, whether it is short enough to be shown open, and
        whether it was turned: its first column then names what the others say.
    """
    shown = []
    for title, rows in tables.items():
        if not rows:
            continue
        found = layout(rows)
        headings, cells = [column.replace("_", " ") for column in found.columns], found.rows
        turned = len(rows) <= FEW and len(headings) > FEW
        if turned:
            cells = [row for row in zip(headings, *cells, strict=True) if any(row[1:])]
            headings = [""] * (1 + len(rows))
        shown.append(
            {"title": title, "headings": headings, "rows": cells, "notes": "; ".join(found.notes), "turned": turned,
             "open": len(rows) <= ROWS_SHOWN}
        )  # fmt: skip
    return shown


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.1e}"  # a p-value is never 0
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
