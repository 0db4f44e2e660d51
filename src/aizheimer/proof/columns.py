"""What of a run can stand in a column, with the single values by which two runs are told apart."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from aizheimer.attacks.results import AttackResult
from aizheimer.evaluation.functional.paired import PairedDifference, paired_difference
from aizheimer.evaluation.results import Calibration, Distance, EvaluationResult, Metric, Units
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.proof.findings import Findings
from aizheimer.proof.units import FIGURES, units_of

Columns: TypeAlias = dict[str, Metric | Distance]

ASR = "asr: "
"""How the columns of attacks begin."""

WHOLE_SETS = "a distance, of which no single values are kept"
NO_UNITS = "no single values are kept"
OTHER_PICTURES = "not counted on the same pictures"
"""Why two figures cannot be tested."""


def columns_of(run: Findings, result: EvaluationResult) -> Columns:
    """Return all figures of a run by the name of their column, an attack's rate with the rate before as its original.

    Args:
        run: The run.
        result: Its evaluation.
    """
    own = {name: metric for name in FIGURES if (metric := getattr(result, name)) is not None}
    found: Columns = {name: _counted(result, name, metric) for name, metric in own.items()}
    for name, suite in run.suites.items():
        found |= {f"{name}: {figure}": metric for figure, metric in (suite.figures | suite.distances).items()}
    return found | {f"{ASR}{name}": _attack(attack) for name, attack in run.attacks.items()}


def judge_errors(run: Findings) -> dict[str, Calibration]:
    """Return how often the judge of each UA errs without any edit, by the name of the UA's column."""
    results = {"": run.evaluation, **{f"{name}: ": suite for name, suite in run.suites.items()}}
    found = {}
    for prefix, result in results.items():
        if result is None or result.calibration is None:
            continue
        names = ["ua"] if isinstance(result, EvaluationResult) else result.figures
        found |= {f"{prefix}{name}": result.calibration for name in names if name.split(".")[0] == "ua"}
    return found


def before_attack(figure: str, run: Findings) -> float | None:
    """Return how often the edited model draws the target without the attack; None of what is no attack's rate."""
    return run.attacks[figure.removeprefix(ASR)].before.value if figure.startswith(ASR) else None


def tell_apart(
    own: Metric | Distance, other: Metric | Distance, *, settings: EvaluationSettings
) -> PairedDifference | str:
    """Compare two runs' values of one figure pair by pair.

    Args:
        own: Of one run.
        other: Of the other.
        settings: Of the bootstrap and the test.

    Returns:
        The difference ``own - other``, or why it cannot be tested. Runs of one protocol have the same pictures row by
        row, but for a figure that names in its own protocol what it counted, such as the worst family of prompts.
    """
    if isinstance(own, Distance) or isinstance(other, Distance):
        return WHOLE_SETS
    if own.units is None or other.units is None:
        return NO_UNITS
    if own.protocol != other.protocol or len(own.units.edited) != len(other.units.edited):
        return OTHER_PICTURES
    values = np.array(own.units.edited), np.array(other.units.edited)
    return paired_difference(*values, seed=settings.seed, samples=settings.bootstrap, level=settings.level)


def _counted(result: EvaluationResult, name: str, metric: Metric) -> Metric:
    """Return a figure of an evaluation with its single values, counted again from the pictures' records."""
    units = units_of(result, name)
    return metric if units is None else metric.model_copy(update={"units": Units.of(*units)})


def _attack(attack: AttackResult) -> Metric:
    answers, before = attack.answers, (attack.unedited_before or attack.before).value
    units = None if answers is None else Units.of(np.array(answers.original or answers.before), answers.either)
    return Metric(
        value=attack.asr.value, interval=attack.asr.interval, original=before, change_interval=(-1.0, 1.0),
        n=attack.asr.n, unit="images", judge=attack.judge, protocol="attack success rate", units=units,
    )  # fmt: skip
