"""Do a result's numbers agree with each other: what no measurement can have written is not vouched for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from aizheimer.attacks.results import AttackResult, Rate
from aizheimer.errors import DataError
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval
from aizheimer.evaluation.results import EvaluationResult, Metric, Units
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.proof.findings import Findings, Result
from aizheimer.proof.units import FIGURES

CLOSE = 1e-9
"""How far numbers may be apart that were computed from the same values: they are summed in another order."""

TABLES = {"canvas": {"own": "ira", "cross": "cra"}}
"""By kind of suite: tables with a row for each unit, and the figure that is their mean."""


def contradictions(result: Result) -> Iterator[str]:
    """Yield what in a result cannot be: a value outside its interval, an ASR below the rate that it contains.

    Where single values are kept (`Metric.units`, `AttackResult.answers`, tables), means and intervals are counted
    again from them. That nobody wrote those by hand too, only drawing the pictures again can say.
    """
    if isinstance(result, AttackResult):
        yield from _of_attack(result)
    elif isinstance(result, SuiteResult):
        yield from _of_figures(result.figures, result.settings)
        yield from _of_tables(result)
    else:
        yield from _of_figures(_of_evaluation(result), result.settings)


def refuse_contradictions(found: Findings) -> None:
    """Refuse results whose numbers contradict each other.

    Raises:
        DataError: In one line: the file and what in it cannot be.
    """
    for file, result in found.files().items():
        if wrong := next(contradictions(result), ""):
            raise DataError(f"{found.folder / file} contradicts itself: {wrong}; measure again, or delete the file")


def _of_evaluation(result: EvaluationResult) -> dict[str, Metric]:
    return {name: metric for name in FIGURES if (metric := getattr(result, name)) is not None}


def _of_figures(figures: Mapping[str, Metric], settings: EvaluationSettings) -> Iterator[str]:
    for name, metric in figures.items():
        pairs = {name: (metric.value, metric.interval), f"change of {name}": (metric.change, metric.change_interval)}
        for title, (value, interval) in pairs.items():
            yield from _outside(title, value, interval)
        if metric.units is not None:
            yield from _of_units(name, metric, metric.units, settings)
    families = {name: m.value for name, m in figures.items() if name.startswith("ua.") and name != "ua.worst"}
    if "ua.worst" in figures and families and not _equal(figures["ua.worst"].value, min(families.values())):
        yield f"ua.worst is {figures['ua.worst'].value:.4f}, the least of its families is {min(families.values()):.4f}"


def _of_units(name: str, metric: Metric, units: Units, settings: EvaluationSettings) -> Iterator[str]:
    edited, original = np.array(units.edited), np.array(units.original)
    if not len(edited) == len(original) == metric.n:
        yield f"{name} is of {metric.n} units, and {len(edited)} are kept"
        return
    yield from _unlike(name, metric.value, edited.mean())
    yield from _unlike(f"{name} of the unedited model", metric.original, original.mean())
    draws = {"seed": settings.seed, "samples": settings.bootstrap, "level": settings.level}
    yield from _other_interval(name, metric.interval, bootstrap_interval(edited, **draws), n=metric.n)
    moved = bootstrap_interval(edited - original, **draws)
    yield from _other_interval(f"change of {name}", metric.change_interval, moved, n=metric.n)


def _of_tables(result: SuiteResult) -> Iterator[str]:
    """Compare the figures that a table's rows add up to with those rows."""
    for row in result.tables.get("families", ()) if result.suite == "families" else ():
        metric = result.figures.get(f"ua.{row['family']}")
        if metric is not None:
            yield from _unlike(f"ua.{row['family']}", metric.value, row.get("ua"))
    for row in result.tables.get("gaps", ()) if result.suite == "fairness" else ():
        metric = result.figures.get(f"gap.{row.get('grouping')}")
        if metric is not None:
            yield from _unlike(f"gap.{row['grouping']}", metric.value, row.get("gap"))
    for table, name in TABLES.get(result.suite, {}).items():
        rows, metric = result.tables.get(table), result.figures.get(name)
        if metric is not None and rows:
            yield from _unlike(name, metric.value, float(np.mean([row["edited"] for row in rows])))


def _of_attack(result: AttackResult) -> Iterator[str]:
    rates = {name: getattr(result, name) for name in ("before", "alone", "asr", "unedited_before")}
    stated: dict[str, Rate] = {name: rate for name, rate in rates.items() if rate is not None}
    for name, rate in stated.items():
        yield from _outside(name, rate.value, rate.interval)
        if rate.n != result.settings.images:
            yield f"{name} is of {rate.n} pictures, and {result.settings.images} were drawn"
    low, high = max(result.before.value, result.alone.value), result.before.value + result.alone.value
    if not low - CLOSE <= result.asr.value <= high + CLOSE:
        yield (
            f"asr is {result.asr.value:.4f}, with {result.before.value:.4f} before and {result.alone.value:.4f} with "
            "the attack alone, either of which counts"
        )
    answers = result.answers
    if answers is None:
        return
    kept = {"before": answers.before, "alone": answers.alone, "unedited_before": answers.original}
    if len({len(side) for side in kept.values() if side is not None}) > 1:
        yield "its answers are of different numbers of pictures"
        return
    for name, side in {**kept, "asr": answers.either}.items():
        if side is not None and name in stated:
            yield from _of_answers(name, stated[name], np.array(side), seed=result.settings.seed)


def _of_answers(name: str, rate: Rate, seen: np.ndarray, *, seed: int) -> Iterator[str]:
    if len(seen) != rate.n:
        yield f"{name} is of {rate.n} pictures, and {len(seen)} answers are kept"
        return
    counted = Rate.of(seen, seed=seed)
    yield from _unlike(name, rate.value, counted.value)
    yield from _other_interval(name, rate.interval, counted.interval, n=rate.n)


def _outside(name: str, value: float, interval: tuple[float, float]) -> Iterator[str]:
    low, high = interval
    if not low - CLOSE <= value <= high + CLOSE:
        yield f"{name} is {value:.4f}, outside its own interval ({low:.4f} to {high:.4f})"


def _unlike(name: str, stated: float, counted: float | None) -> Iterator[str]:
    if counted is None or not _equal(stated, float(counted)):
        again = "nothing" if counted is None else f"{counted:.4f}"
        yield f"{name} is {stated:.4f}, counted again {again}"


def _other_interval(name: str, stated: tuple[float, float], counted: tuple[float, float], *, n: int) -> Iterator[str]:
    """Another version of numpy may draw otherwise: the ends may be a picture apart."""
    if max(abs(a - b) for a, b in zip(stated, counted, strict=True)) > max(0.02, 1 / n) + CLOSE:
        texts = (f"{low:.4f} to {high:.4f}" for low, high in (stated, counted))
        yield f"the interval of {name} is {next(texts)}, counted again {next(texts)}"


def _equal(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE
