"""One line of a verdict: how a limit, a figure, a doubt and what is not there are told."""

from __future__ import annotations

from aizheimer.evaluation.results import EvaluationResult, Metric
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.proof.bounds import widened
from aizheimer.proof.verdict import Fault, GateLine


def at_least(rule: str, limit: float, metric: Metric, *, use: str, fault: Fault = "") -> GateLine:
    """Return the line of a share that must reach a limit, by its lower end or by its value."""
    low, high = widened(metric.interval, value=metric.value, n=metric.n)
    worst = low if use == "interval" else metric.value
    found = share(metric.value, (low, high), metric.n)
    passed = worst >= limit
    return GateLine(
        rule=rule,
        wanted=f"at least {percent(limit)}",
        found=found,
        passed=passed,
        fault="" if passed else fault,
        reason="" if passed else doubt(passes_by_value=metric.value >= limit, n=metric.n),
    )


def judged(line: GateLine, result: EvaluationResult | SuiteResult | None) -> GateLine:
    """Return the line of a UA with how often its judge errs without any edit, which it must be read against."""
    calibration = None if result is None else result.calibration
    return line if calibration is None else line.model_copy(update={"judge": calibration.brief})


def there(rule: str, is_there: bool, command: str) -> GateLine:
    """Return the line of a result that must be there, with the command that makes it."""
    line = GateLine(rule=rule, wanted="a result", found="there", passed=True)
    return line if is_there else missing(rule, "a result", command)


def missing(rule: str, wanted: str, command: str) -> GateLine:
    """Return the failing line of what was not measured."""
    return GateLine(rule=rule, wanted=wanted, passed=False, reason=f"not measured yet: run `{command}`")


def doubt(*, passes_by_value: bool, n: int) -> str:
    """Say when more pictures could help, and when they could not."""
    return f"the value itself would do, {n} are too few to be sure: measure on more" if passes_by_value else ""


def percent(value: float) -> str:
    """Return a share in three digits."""
    return f"{100 * value:.3g}%"


def points(change: float) -> str:
    """Return a change of a share in three digits."""
    return f"{round(100 * change, 6) + 0.0:.3g} points"  # no -0


def share(value: float, interval: tuple[float, float], n: int) -> str:
    """Return a share with its interval and how many pictures it is of."""
    low, high = (f"{100 * end:.3g}" for end in interval)
    return f"{percent(value)} ({low} to {high}%, n={n})"
