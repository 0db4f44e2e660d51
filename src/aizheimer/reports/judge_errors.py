"""How often the judges of a bench err without any edit, from its rows: what every UA must be read against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aizheimer.reports.alike import JUDGE, Row, stating
from aizheimer.reports.wording import percent

ERRORS = ("false_negative", "false_positive")
"""The judge misses the target in pictures of it; it sees the target in pictures of something else."""


@dataclass(frozen=True, kw_only=True)
class JudgeErrors:
    """Errors of one judge on one concept, in words.

    Args:
        concept: The target.
        judge: Who looked.
        of: Where they were counted: "evaluation", or the suites.
        errors: In the order of `ERRORS`: the share with its interval and n, "–" where it was not counted.
    """

    concept: str
    judge: str
    of: str
    errors: tuple[str, str]


def is_judge_error(name: str) -> bool:
    """Return whether a column is an error rate of a judge, which is no figure of an edit.

    Example:
        >>> is_judge_error("ua.false_negative"), is_judge_error("ua")
        (True, False)
    """
    return name.endswith(tuple(f".{error}" for error in ERRORS))


def judge_errors_of(rows: Sequence[Row]) -> list[JudgeErrors]:
    """Return the errors of each judge on each concept, in the order of the rows.

    Rows of before they were written have none. They are of the unedited model's pictures, and so the same for all
    methods; what several suites counted alike is said once.

    Args:
        rows: Of a bench.
    """
    places: dict[tuple[str, str, tuple[str, str]], dict[str, None]] = {}
    for row in rows:
        figures = dict.fromkeys(name.rpartition(".")[0] for name in stating([row], JUDGE) if is_judge_error(name))
        for figure in figures:
            judge = next(row[key] for error in ERRORS if row.get(key := f"{figure}.{error}{JUDGE}") is not None)
            key = str(row["concept"]), str(judge), (_said(row, figure, ERRORS[0]), _said(row, figure, ERRORS[1]))
            places.setdefault(key, {})[figure.rpartition(".")[0] or "evaluation"] = None
    return [
        JudgeErrors(concept=concept, judge=judge, of=", ".join(of), errors=errors)
        for (concept, judge, errors), of in places.items()
    ]


def _said(row: Row, figure: str, error: str) -> str:
    name = f"{figure}.{error}"
    if row.get(name) is None:
        return "–"
    low, high = 100 * row[f"{name}.low"], percent(row[f"{name}.high"])
    return f"{percent(row[name])} ({low:.0f} to {high}, n={row[f'{name}.n']})"
