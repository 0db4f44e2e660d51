"""Several edits of one target side by side, each difference said to be one or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from aizheimer.errors import InputError
from aizheimer.evaluation.distances import MUST_AGREE
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval
from aizheimer.evaluation.functional.paired import PairedDifference
from aizheimer.evaluation.results import Calibration, Distance, EvaluationResult, Metric
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.proof.columns import Columns, before_attack, columns_of, judge_errors, tell_apart
from aizheimer.proof.directions import better
from aizheimer.proof.findings import Findings, refuse_other_edits
from aizheimer.proof.protocol import refuse_mixed, weights_unsaid

Reference: TypeAlias = Literal["first", "best"]

UNEDITED = "unedited model"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of one run.

    Args:
        value: A share in [0, 1], or a distance.
        interval: Of ``value``; None where single values are not kept, and for a distance of whole sets.
        n: Units averaged.
        difference: To the reference run on the same prompts and seeds; None for the reference itself and for what
            cannot be tested.
        untested: Why not.
        before: Of an attack's rate: the same edit's without the attack, which the rate contains; else None.
        judge: Of a UA: how often its judge errs without any edit; else None, and in files of before it was counted.
    """

    value: float
    interval: tuple[float, float] | None
    n: int
    difference: PairedDifference | None = None
    untested: str = ""
    before: float | None = None
    judge: Calibration | None = None

    @property
    def indistinct(self) -> bool:
        """Whether it cannot be told from the reference's."""
        return self.difference is not None and not self.difference.distinguishable


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One row.

    Args:
        name: The run's folder, or `UNEDITED`.
        method: What made the edit.
        cells: By figure; what a run lacks is not there.
        flags: "no-op" and "collapse", where they are up.
    """

    name: str
    method: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table of runs.

    Args:
        target: The concept.
        kind: "object" or "style".
        model_name: Name of the world or model.
        figures: Columns, in order: ``"ua"``, ``"families: ua.synonyms"``, ``"asr: p4d"``.
        rows: The unedited model, then the runs as they were given.
        references: The run that each figure's differences are to.
        level: Of intervals and tests.
        distances: The columns that are distances, not shares: what every number in the column was computed with.
        warnings: By run: why its numbers must be read with care.
    """

    target: str
    kind: str
    model_name: str
    figures: list[str]
    rows: list[ComparedRun]
    references: dict[str, str]
    level: float
    distances: dict[str, Distance] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; of a distance's column, what its numbers were computed with."""
        protocols = {
            name: found.model_dump(mode="json", include=set(MUST_AGREE)) for name, found in self.distances.items()
        }
        return asdict(self) | {"rows": [_row(row) for row in self.rows], "distances": protocols}


def _row(row: ComparedRun) -> dict[str, Any]:
    judges = {name: cell.judge and cell.judge.model_dump(mode="json") for name, cell in row.cells.items()}
    found = asdict(row)
    return found | {"cells": {name: cell | {"judge": judges[name]} for name, cell in found["cells"].items()}}


def compare(runs: Sequence[Findings], *, reference: Reference = "first") -> Comparison:
    """Put runs side by side.

    Args:
        runs: One or more of one target, each evaluated.
        reference: What differences are to: the first run, or for each figure the run that is best at it; the first that
            has the figure where nobody said whether more or less of it is better.

    Returns:
        The table; its first row is the unedited model, whose values all runs share.

    Raises:
        InputError: If a run was not evaluated, two have one name, the runs were not measured alike, or a result is of
            another edit than its run's.
    """
    evaluations = [_evaluation(run) for run in runs]
    names = _names(runs)
    for run in runs:
        refuse_other_edits(run)
    refuse_mixed(runs)
    columns = [columns_of(run, result) for run, result in zip(runs, evaluations, strict=True)]
    figures = list(dict.fromkeys(figure for own in columns for figure in own))
    references = {figure: names[_reference(figure, columns, reference)] for figure in figures}
    rows = [ComparedRun(name=UNEDITED, cells=_unedited(columns, evaluations))]
    for i, (run, result) in enumerate(zip(runs, evaluations, strict=True)):
        erring = judge_errors(run)
        others = {figure: columns[names.index(references[figure])][figure] for figure in columns[i]}
        cells = {
            figure: replace(
                _cell(metric, others[figure], result.settings),
                before=before_attack(figure, run),
                judge=erring.get(figure),
            )
            for figure, metric in columns[i].items()
        }
        flags = [flag for flag, up in (("no-op", result.no_op), ("collapse", result.collapse)) if up]
        rows.append(ComparedRun(name=names[i], method=run.method, cells=cells, flags=flags))
    return Comparison(
        target=evaluations[0].target,
        kind=evaluations[0].kind,
        model_name=evaluations[0].model_name,
        figures=figures,
        rows=rows,
        references=references,
        level=evaluations[0].settings.level,
        distances={n: found for own in reversed(columns) for n, found in own.items() if isinstance(found, Distance)},
        warnings=_warnings(runs, names),
    )


def _evaluation(run: Findings) -> EvaluationResult:
    if run.evaluation is None:
        raise InputError(f"{run.folder} was not evaluated; run `aizheimer evaluate {run.folder}` first")
    return run.evaluation


def _warnings(runs: Sequence[Findings], names: Sequence[str]) -> dict[str, list[str]]:
    unsaid = weights_unsaid(runs)
    texts = {
        name: [*_evaluation(run).warnings, *([unsaid[run.folder]] if run.folder in unsaid else [])]
        for name, run in zip(names, runs, strict=True)
    }
    return {name: lines for name, lines in texts.items() if lines}


def _names(runs: Sequence[Findings]) -> list[str]:
    """Return the folders' names, with their parents' where two are the same.

    Raises:
        InputError: If one folder is given twice.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.folder.resolve().parent.name}/{run.name}" for run in runs]
    if len(set(names)) < len(names):
        raise InputError(f"got a run twice ({', '.join(names)}); name each once")
    return names


def _reference(figure: str, columns: Sequence[Columns], reference: Reference) -> int:
    having = [i for i, own in enumerate(columns) if figure in own]
    if reference == "first":
        return having[0]
    direction = better(figure, columns[having[0]][figure])
    if not direction:
        return having[0]
    sign = -1 if direction == "less" else 1
    return max(having, key=lambda i: (sign * columns[i][figure].value, -i))


def _unedited(columns: Sequence[Columns], evaluations: Sequence[EvaluationResult]) -> dict[str, Cell]:
    """Return the unedited model's values, which are the same in every run that measured them."""
    cells: dict[str, Cell] = {}
    for own, result in zip(columns, evaluations, strict=True):
        for name, metric in own.items():
            interval = _before(metric, result.settings)
            cells.setdefault(name, Cell(value=metric.original, interval=interval, n=metric.n))
    return cells


def _before(metric: Metric | Distance, settings: EvaluationSettings) -> tuple[float, float] | None:
    units = metric.units if isinstance(metric, Metric) else None
    if units is None:
        return None
    values = np.array(units.original)
    return bootstrap_interval(values, seed=settings.seed, samples=settings.bootstrap, level=settings.level)


def _cell(metric: Metric | Distance, reference: Metric | Distance, settings: EvaluationSettings) -> Cell:
    told = None if metric is reference else tell_apart(metric, reference, settings=settings)
    untested = told if isinstance(told, str) else ""
    difference = told if isinstance(told, PairedDifference) else None
    return Cell(value=metric.value, interval=metric.interval, n=metric.n, difference=difference, untested=untested)
