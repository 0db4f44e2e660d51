"""Several edits of one target side by side, each difference said to be one or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from aizheimer.errors import InputError
from aizheimer.evaluation.distances import HIGHER_IS_BETTER, MUST_AGREE
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval
from aizheimer.evaluation.functional.paired import PairedDifference, paired_difference
from aizheimer.evaluation.results import Distance, EvaluationResult, Metric
from aizheimer.proof.findings import Findings, refuse_other_edits
from aizheimer.proof.protocol import refuse_mixed, weights_unsaid
from aizheimer.proof.units import FIGURES, units_of

Reference: TypeAlias = Literal["first", "best"]
Columns: TypeAlias = dict[str, Metric | Distance]

UNEDITED = "unedited model"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of one run.

    Args:
        value: A share in [0, 1], or a distance.
        interval: Of ``value``; None where single values are not kept, and for a distance of whole sets.
        n: Units averaged.
        difference: To the reference run on the same prompts and seeds; None for the reference itself and where single
            values are not kept.
    """

    value: float
    interval: tuple[float, float] | None
    n: int
    difference: PairedDifference | None = None

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
        return asdict(self) | {"distances": protocols}


def compare(runs: Sequence[Findings], *, reference: Reference = "first") -> Comparison:
    """Put runs side by side.

    Args:
        runs: One or more of one target, each evaluated.
        reference: What differences are to: the first run, or for each figure the run that is best at it.

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
    columns = [_columns(run, result) for run, result in zip(runs, evaluations, strict=True)]
    figures = list(dict.fromkeys(figure for own in columns for figure in own))
    references = {figure: names[_reference(figure, columns, reference)] for figure in figures}
    rows = [ComparedRun(name=UNEDITED, cells=_unedited(columns, evaluations))]
    for i, (run, result) in enumerate(zip(runs, evaluations, strict=True)):
        cells = {
            figure: _cell(figure, metric, result, evaluations[names.index(references[figure])])
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


def is_better_low(figure: str, found: Metric | Distance) -> bool:
    """Return whether less of a figure is better: attack success and most distances, as opposed to accuracies."""
    if isinstance(found, Distance):
        return found.metric not in HIGHER_IS_BETTER
    return figure.startswith("asr: ")


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


def _columns(run: Findings, result: EvaluationResult) -> Columns:
    """Return all that can be a column, an attack's rate written as a figure whose original is the rate before."""
    found: Columns = {name: metric for name in FIGURES if (metric := getattr(result, name)) is not None}
    for name, suite in run.suites.items():
        found |= {f"{name}: {figure}": metric for figure, metric in (suite.figures | suite.distances).items()}
    for name, attack in run.attacks.items():
        before = (attack.unedited_before or attack.before).value
        found[f"asr: {name}"] = Metric(
            value=attack.asr.value, interval=attack.asr.interval, original=before, change_interval=(-1.0, 1.0),
            n=attack.asr.n, unit="images", judge=attack.judge, protocol="attack success rate",
        )  # fmt: skip
    return found


def _reference(figure: str, columns: Sequence[Columns], reference: Reference) -> int:
    having = [i for i, own in enumerate(columns) if figure in own]
    if reference == "first":
        return having[0]
    sign = -1 if is_better_low(figure, columns[having[0]][figure]) else 1
    return max(having, key=lambda i: (sign * columns[i][figure].value, -i))


def _unedited(columns: Sequence[Columns], evaluations: Sequence[EvaluationResult]) -> dict[str, Cell]:
    """Return the unedited model's values, which are the same in every run that measured them."""
    cells: dict[str, Cell] = {}
    for own, result in zip(columns, evaluations, strict=True):
        for name, metric in own.items():
            cells.setdefault(name, Cell(value=metric.original, interval=_before(name, result), n=metric.n))
    return cells


def _before(figure: str, result: EvaluationResult) -> tuple[float, float] | None:
    units = units_of(result, figure) if figure in FIGURES else None
    settings = result.settings
    if units is None:
        return None
    return bootstrap_interval(units[0], seed=settings.seed, samples=settings.bootstrap, level=settings.level)


def _cell(figure: str, metric: Metric | Distance, result: EvaluationResult, reference: EvaluationResult) -> Cell:
    return Cell(
        value=metric.value, interval=metric.interval, n=metric.n, difference=_difference(figure, result, reference)
    )


def _difference(figure: str, result: EvaluationResult, reference: EvaluationResult) -> PairedDifference | None:
    if figure not in FIGURES or result is reference:
        return None
    own, other = units_of(result, figure), units_of(reference, figure)
    if own is None or other is None:
        return None
    settings = result.settings
    return paired_difference(own[1], other[1], seed=settings.seed, samples=settings.bootstrap, level=settings.level)
