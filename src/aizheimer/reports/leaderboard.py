"""The rows of a bench as a table of methods: who forgets, who keeps, and who can be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aizheimer._files import write_text
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval
from aizheimer.evaluation.functional.paired import paired_difference
from aizheimer.reports.alike import EXTRACTOR, Row, check_rows
from aizheimer.reports.judge_errors import is_judge_error, judge_errors_of
from aizheimer.reports.page import render_page
from aizheimer.reports.wording import percent

if TYPE_CHECKING:
    from rich.table import Table

SCORED = ("ua", "ira", "cra")
"""What the score is the harmonic mean of."""

COSTS = ("seconds_forget", "megabytes")
BEFORE = ".before"
SURVIVED = ".steps_survived"
"""Steps of an attack until the concept is back, its whole budget where it is not: what can be averaged."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A figure averaged over concepts, each of them the mean of its seeds."""

    value: float
    interval: tuple[float, float]
    concepts: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One method.

    Args:
        method: Its name in the rows.
        done: Jobs that were measured.
        failed: Jobs that ended with an error.
        figures: Means by column of the rows.
        score: Harmonic mean of UA, IRA and CRA over all its jobs; None if one is missing or a job failed.
        collapses: Jobs whose model lost more than the concept.
        no_ops: Jobs whose edit did nothing.
        alike: Whether its scores cannot be told from those of the method above all, concept by concept.
    """

    method: str
    done: int
    failed: int
    figures: dict[str, Mean] = field(default_factory=dict)
    score: float | None = None
    collapses: int = 0
    no_ops: int = 0
    alike: bool = False


def harmonic(values: Sequence[float]) -> float:
    """Return the harmonic mean, 0 if any value is: a method that fails at one thing is not saved by the others.

    It depends on the method's own values only: a further method in the table moves nobody's score.

    Example:
        >>> harmonic([1.0, 0.5]), harmonic([1.0, 0.0])
        (0.6666666666666666, 0.0)
    """
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def standings(rows: Sequence[Row]) -> list[Standing]:
    """Return the methods, best score first; those with failed or unmeasured jobs last, without a score.

    A method that failed on hard concepts would be averaged over easy ones, so it gets no score and its failures are
    counted beside it.

    Args:
        rows: Of a bench.

    Raises:
        InputError: If rows have distances that were not computed alike, which have no mean.
    """
    check_rows(rows)
    methods = dict.fromkeys(str(row["method"]) for row in rows)
    found = [_standing(method, [row for row in rows if row["method"] == method]) for method in methods]
    ranked = sorted((s for s in found if s.score is not None), key=lambda s: -(s.score or 0.0))
    marked = [_marked(standing, ranked[0], rows) for standing in ranked]
    return [*marked, *(standing for standing in found if standing.score is None)]


def columns(found: Sequence[Standing]) -> list[str]:
    """Return the figures that any method has, in the order of the table."""
    names = dict.fromkeys(name for standing in found for name in standing.figures)
    return [*(n for n in SCORED if n in names), *(n for n in names if n not in (*SCORED, *COSTS))]


def _standing(method: str, rows: Sequence[Row]) -> Standing:
    done = [row for row in rows if row["status"] == "done"]
    failed = len(rows) - len(done)
    means = {name: mean for name in _names(done) if (mean := _mean(done, name)) is not None}
    whole = bool(done) and not failed and all(row.get(name) is not None for row in done for name in SCORED)
    return Standing(
        method=method,
        done=len(done),
        failed=failed,
        figures=means,
        score=harmonic([means[name].value for name in SCORED]) if whole else None,
        collapses=sum(bool(row.get("collapse")) for row in done),
        no_ops=sum(bool(row.get("no_op")) for row in done),
    )


def _names(rows: Sequence[Row]) -> list[str]:
    """Return the columns that are figures: those with an interval beside them, rates, and costs.

    What is drawn without an attack is the same for all attacks of a bench, so the first one's is enough.
    """
    there = dict.fromkeys(name for row in rows for name in row if row[name] is not None and not is_judge_error(name))
    before = [name for name in there if name.startswith("asr.") and name.endswith(BEFORE)]
    told = {*COSTS, *before[:1], *(name for name in there if name.endswith(SURVIVED))}
    return [name for name in there if f"{name}.low" in there or f"{name}{EXTRACTOR}" in there or name in told]


def _is_share(rows: Sequence[Row], name: str) -> bool:
    """Return whether a figure is a share; distances such as KID name their extractor and are numbers, as are steps."""
    return not name.endswith(SURVIVED) and not any(row.get(f"{name}{EXTRACTOR}") for row in rows)


def _mean(rows: Sequence[Row], name: str) -> Mean | None:
    found = [(str(row["concept"]), float(row[name])) for row in rows if row.get(name) is not None]
    if not found:
        return None
    values = mean_by_concept(found)
    return Mean(value=float(values.mean()), interval=bootstrap_interval(values, seed=0), concepts=len(values))


def mean_by_concept(found: Iterable[tuple[str, float]]) -> np.ndarray:
    """Return the mean of each concept's values, in order of appearance: its seeds are no more independent than one.

    Example:
        >>> mean_by_concept([("cat", 0.0), ("dog", 1.0), ("cat", 1.0)]).tolist()
        [0.5, 1.0]
    """
    by_concept: dict[str, list[float]] = {}
    for concept, value in found:
        by_concept.setdefault(concept, []).append(value)
    return np.array([np.mean(seeds) for seeds in by_concept.values()])


def _marked(standing: Standing, best: Standing, rows: Sequence[Row]) -> Standing:
    if standing.method == best.method:
        return standing
    own, other = _scores(rows, standing.method), _scores(rows, best.method)
    shared = [key for key in own if key in other]
    if not shared:
        return standing
    pairs = [mean_by_concept((concept, scores[concept, seed]) for concept, seed in shared) for scores in (own, other)]
    return replace(standing, alike=not paired_difference(*pairs, seed=0).distinguishable)


def _scores(rows: Sequence[Row], method: str) -> dict[tuple[str, int], float]:
    return {
        (str(row["concept"]), row["seed"]): harmonic([row[name] for name in SCORED])
        for row in rows
        if row["method"] == method and all(row.get(name) is not None for name in SCORED)
    }


def sections(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return figures by what they belong to, each with its heading: the evaluation's own, a suite's, the attacks'.

    Example:
        >>> sections(["ua", "families.ua.name", "asr.p4d", "asr.p4d.before"])
        {'': {'ua': 'UA'}, 'families': {'families.ua.name': 'ua.name'}, 'attacks': {'asr.p4d.before': \
'without', 'asr.p4d': 'p4d'}}
    """
    found: dict[str, dict[str, str]] = {"": {}}
    for name in names:
        first, _, rest = name.partition(".")
        if not rest:
            found[""][name] = first.upper() if first in SCORED else first
        elif first == "asr":
            found.setdefault("attacks", {})[name] = "without" if name.endswith(BEFORE) else rest.removesuffix(SURVIVED)
        else:
            found.setdefault(first, {})[name] = rest
    if attacks := found.get("attacks"):
        steps = {name: f"{heading}, steps" for name, heading in attacks.items() if name.endswith(SURVIVED)}
        first = {name: heading for name, heading in attacks.items() if name.endswith(BEFORE)}
        found["attacks"] = first | attacks | steps
    return found


def write_leaderboard(path: Path, rows: Sequence[Row]) -> Path:
    """Write the leaderboard as a page that needs no second file, all of it or nothing."""
    found = standings(rows)
    failures = [row for row in rows if row["status"] == "failed"]
    shares = {name: _is_share(rows, name) for name in columns(found)}
    shown = {
        name: [(_value(s.figures.get(name), share=share), _interval(s.figures.get(name), share=share)) for s in found]
        for name, share in shares.items()
    }
    costs = {name: [_cost(s.figures.get(name)) for s in found] for name in COSTS}
    write_text(
        path,
        render_page(
            "leaderboard.html",
            standings=found,
            sections=sections(columns(found)),
            figures=shown,
            shares=shares,
            costs=costs,
            judges=judge_errors_of([row for row in rows if row["status"] == "done"]),
            rows=rows,
            failures=failures,
        ),
    )
    return path


def leaderboard_tables(rows: Sequence[Row]) -> list[Table]:
    """Return the leaderboard as rich tables that fit a terminal: the evaluation's figures, and what attacks bring back.

    Suites have too many figures for that: they are on the page.
    """
    from rich.markup import escape
    from rich.table import Table

    found = standings(rows)
    parts = sections(columns(found))
    table = Table(title="leaderboard", title_justify="left")
    table.add_column("method", no_wrap=True)
    failed = any(standing.failed for standing in found)
    heads = ["score", "jobs", *(["failed"] if failed else []), *map(escape, parts[""].values()), "seconds", "MB"]
    for heading in heads:
        table.add_column(heading, justify="right")
    for standing in found:
        score = "–" if standing.score is None else f"{100 * standing.score:.1f}{' ≈' if standing.alike else ''}"
        jobs = [str(standing.done), *([str(standing.failed)] if failed else [])]
        figures = [_value(standing.figures.get(name), share=_is_share(rows, name)) for name in parts[""]]
        costs = [_cost(standing.figures.get(name)) for name in COSTS]
        table.add_row(escape(standing.method), score, *jobs, *figures, *costs)
    if "attacks" not in parts:
        return [table]
    attacks = Table(title="pictures that show the target, by attack", title_justify="left")
    attacks.add_column("method", no_wrap=True, min_width=max(len(standing.method) for standing in found))
    for heading in parts["attacks"].values():
        attacks.add_column(escape(heading), justify="right", overflow="fold")
    for standing in found:
        rates = [_value(standing.figures.get(name), share=_is_share(rows, name)) for name in parts["attacks"]]
        attacks.add_row(escape(standing.method), *rates)
    return [table, attacks]


def _value(mean: Mean | None, *, share: bool) -> str:
    if mean is None:
        return "–"
    return percent(mean.value) if share else f"{mean.value:.3g}"


def _interval(mean: Mean | None, *, share: bool) -> str:
    """Return the interval over concepts in words, "" where there is one concept only."""
    if mean is None or mean.concepts < 2:
        return ""
    low, high = mean.interval
    return f"{100 * low:.0f}–{100 * high:.0f}" if share else f"{low:.3g} to {high:.3g}"


def _cost(mean: Mean | None) -> str:
    return "–" if mean is None else f"{mean.value:.3g}"
