"""What was measured as columns of a row, each number with all that it must be read with.

Every row says it again: who reads one line of a table must not need a second file. Parquet keeps it once.
"""

from __future__ import annotations

import json

from aizheimer.attacks.results import AttackResult
from aizheimer.bench.rows import Row
from aizheimer.evaluation.distances import MUST_AGREE
from aizheimer.evaluation.results import Calibration, Distance, EvaluationResult, Interval, Metric
from aizheimer.proof.trials import Trials
from aizheimer.proof.units import FIGURES

ASR_PROTOCOL = "pictures that show the target, drawn with the attack or without"


def evaluation_columns(result: EvaluationResult) -> Row:
    """Return the figures of an evaluation, and how often the judge of UA errs without any edit."""
    found: Row = {}
    for name in FIGURES:
        metric: Metric | None = getattr(result, name)
        if metric is not None:
            found |= _share(name, metric)
    return found | _judge_errors("ua", result.calibration)


def trial_columns(trials: Trials) -> Row:
    """Return what suites and attacks found, and what could not be asked."""
    found: Row = {}
    for name, suite in trials.suites.items():
        for figure, metric in suite.figures.items():
            found |= _share(f"{name}.{figure}", metric)
        for figure, distance in suite.distances.items():
            found |= _distance(f"{name}.{figure}", distance)
        found |= _judge_errors(f"{name}.ua", suite.calibration)
    for name, attack in trials.attacks.items():
        found |= _attack(f"asr.{name}", attack)
    if trials.refused:
        found["refused"] = "; ".join(f"{name}: {reason}" for name, reason in trials.refused.items())
    return found


def _share(name: str, metric: Metric) -> Row:
    return {
        name: metric.value,
        **_ends(name, metric.interval),
        f"{name}.original": metric.original,
        f"{name}.n": metric.n,
        f"{name}.judge": metric.judge,
        f"{name}.protocol": metric.protocol,
    }


def _judge_errors(name: str, calibration: Calibration | None) -> Row:
    """Return what a UA must be read against; empty where it was not counted."""
    row: Row = {}
    for error in ("false_negative", "false_positive"):
        if calibration is not None and (share := getattr(calibration, error)) is not None:
            own = f"{name}.{error}"
            row |= {own: share.value, **_ends(own, share.interval), f"{own}.n": share.n}
            row |= {f"{own}.judge": calibration.judge}
    return row


def _distance(name: str, distance: Distance) -> Row:
    """Return a distance with all that must agree before it may be averaged with another."""
    row: Row = {name: distance.value, f"{name}.original": distance.original}
    row |= {} if distance.interval is None else _ends(name, distance.interval)
    return row | {f"{name}.{field}": getattr(distance, field) for field in MUST_AGREE}


def _attack(name: str, attack: AttackResult) -> Row:
    row: Row = {
        name: attack.asr.value,
        **_ends(name, attack.asr.interval),
        f"{name}.n": attack.asr.n,
        f"{name}.judge": attack.judge,
        f"{name}.protocol": ASR_PROTOCOL,
        f"{name}.attack": attack.attack,
        f"{name}.parameters": json.dumps(attack.parameters, ensure_ascii=False),
        f"{name}.before": attack.before.value,
        f"{name}.seconds": attack.spent.seconds,
    }
    for control in ("unedited", "neighbour", "random"):
        if (rate := getattr(attack, control)) is not None:
            row[f"{name}.{control}"] = rate.value
    if "steps_to_recover" in attack.details:
        needed = attack.details["steps_to_recover"]
        row[f"{name}.steps_to_recover"] = needed
        row[f"{name}.steps_survived"] = attack.spent.steps if needed is None else needed
    return row


def _ends(name: str, interval: Interval) -> Row:
    low, high = interval
    return {f"{name}.low": low, f"{name}.high": high}
