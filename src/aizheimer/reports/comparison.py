"""Several edits in one table, for a terminal and for markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aizheimer._files import write_text
from aizheimer.proof.bounds import widened
from aizheimer.proof.columns import ASR
from aizheimer.proof.comparison import UNEDITED, Cell, ComparedRun, Comparison
from aizheimer.reports.wording import measured_by, number, percent

if TYPE_CHECKING:
    from rich.table import Table

ALIKE = "≈"
"""Marks a figure that cannot be told from the reference's."""

UNTESTED = "?"
"""Marks a figure of which nobody can say whether it can."""

ERRORS = "judge of UA"
"""Heads the line of how often the judge of UA errs without any edit."""

SHORT = {"ua": "UA", "ira": "IRA", "near": "IRA near", "far": "IRA far", "cra": "CRA"}


def comparison_table(comparison: Comparison) -> Table:
    """Return the runs as a rich table: a column each, a line for each figure, which are the more of the two."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"“{escape(comparison.target)}” on {escape(comparison.model_name)}", title_justify="left")
    heads, *lines = _lines(comparison)
    for i, name in enumerate(heads):
        table.add_column(escape(name), justify="right" if i else "left", overflow="fold")
    for i, line in enumerate(lines):
        table.add_row(*(escape(text) for text in line), end_section=i == 0)
    table.caption = escape(" ".join(notes(comparison)))
    table.caption_justify = "left"
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """Return the runs as a markdown page: the table, how to read it, and what must be known of single runs."""
    heads, *rows = _lines(comparison)
    lines = [
        f"# “{comparison.target}” on {comparison.model_name}",
        "",
        _line(heads),
        "|---|" + "---:|" * (len(heads) - 1),
        *(_line(row) for row in rows),
        "",
        *notes(comparison),
    ]
    for name, warnings in comparison.warnings.items():
        lines += ["", f"{name}:", "", *(f"- {warning}" for warning in warnings)]
    return "\n".join(lines) + "\n"


def _lines(comparison: Comparison) -> list[list[str]]:
    """Return the table line by line: names of runs, their methods, then each figure."""
    columns = [_texts(row, comparison) for row in comparison.rows]
    heads = ["", "method", *(heading(figure) for figure in comparison.figures)]
    lines = [[head, *(column[i] for column in columns)] for i, head in enumerate(heads)]
    after = {figure: [line] for figure, line in zip(comparison.figures, lines[2:], strict=True)}
    for figure in _last_of_each_judge(comparison.figures):
        errors = [row.cells[figure].judge if figure in row.cells else None for row in comparison.rows]
        if any(errors):
            name = f"{figure.rpartition(': ')[0]}: {ERRORS}".removeprefix(": ")
            after[figure].append([name, *(error.brief.removeprefix("judge ") if error else "" for error in errors)])
    return [*lines[:2], *(line for group in after.values() for line in group)]


def _last_of_each_judge(figures: Sequence[str]) -> list[str]:
    """Return the last UA of the evaluation and of each suite, under which the errors of its judge stand."""
    rated = [figure for figure in figures if figure.rpartition(": ")[2].split(".")[0] == "ua"]
    return list({figure.rpartition(": ")[0]: figure for figure in rated}.values())


def write_comparison(path: Path, comparison: Comparison) -> Path:
    """Write the markdown page, all of it or nothing."""
    write_text(path, comparison_markdown(comparison))
    return path


def heading(figure: str) -> str:
    """Return what a figure's column is called.

    Example:
        >>> heading("ua"), heading("asr: p4d")
        ('UA', 'ASR p4d')
    """
    return SHORT.get(figure, figure.replace(ASR, "ASR "))


def notes(comparison: Comparison) -> list[str]:
    """Return how the table is to be read, in sentences."""
    level = f"{comparison.level:.0%}"
    texts = [f"In brackets the {level} interval, of shares in percent."]
    if any(cell.indistinct for row in comparison.rows for cell in row.cells.values()):
        names = sorted(
            {comparison.references[f] for row in comparison.rows for f, c in row.cells.items() if c.indistinct}
        )
        texts.append(
            f"{ALIKE} is not distinguishable from {' or '.join(names)}: the {level} interval of the paired difference "
            "on the same prompts and seeds holds zero, or the sign-flip test does not reject it."
        )
    if reasons := sorted({cell.untested for row in comparison.rows for cell in row.cells.values() if cell.untested}):
        texts.append(f"{UNTESTED} was not tested, so that it may differ or not: {'; '.join(reasons)}.")
    if any(cell.judge for row in comparison.rows for cell in row.cells.values()):
        texts.append(
            f"{ERRORS}: the share of the {UNEDITED}'s pictures of the target that it misses, and of its other pictures "
            "that it takes for the target."
        )
    if any(figure.startswith(ASR) for figure in comparison.figures):
        texts.append(
            f"ASR is how often the target is drawn without the attack → with it or without; of the {UNEDITED}, without."
        )
    texts += [f"{heading(name)} is a distance {measured_by(found)}." for name, found in comparison.distances.items()]
    return texts


def _texts(row: ComparedRun, comparison: Comparison) -> list[str]:
    name = f"{row.name} ({', '.join(row.flags)})" if row.flags else row.name
    cells = [
        (_distance if figure in comparison.distances else _share)(row.cells[figure]) if figure in row.cells else "–"
        for figure in comparison.figures
    ]
    return [name, row.method, *cells]


def _distance(cell: Cell) -> str:
    ends = "" if cell.interval is None else f" ({'–'.join(map(number, cell.interval))})"
    return f"{number(cell.value)}{ends}{_mark(cell)}"


def _share(cell: Cell) -> str:
    ends = ""
    if cell.interval is not None:
        low, high = widened(cell.interval, value=cell.value, n=cell.n)
        ends = f" ({100 * low:.0f}–{100 * high:.0f})"
    before = "" if cell.before is None else f"{percent(cell.before)} → "
    return f"{before}{percent(cell.value)}{ends}{_mark(cell)}"


def _mark(cell: Cell) -> str:
    """Return what is said of the difference to the reference; nothing of one that can be told apart."""
    if cell.untested:
        return f" {UNTESTED}"
    return f" {ALIKE}" if cell.indistinct else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
