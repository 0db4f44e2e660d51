"""What the numbers mean, in plain words."""

from __future__ import annotations

from aizheimer.attacks.results import Rate
from aizheimer.evaluation.distances import HIGHER_IS_BETTER
from aizheimer.evaluation.flags import WEAK_TARGET_SHARE
from aizheimer.evaluation.results import Calibration, Distance, EvaluationResult, Metric, Share
from aizheimer.proof.bounds import widened


def percent(value: float) -> str:
    """Return a share as a percentage without false precision.

    Example:
        >>> percent(0.984), percent(1.0), percent(0.0)
        ('98%', '100%', '0%')
    """
    return f"{100 * value:.0f}%"


def points(change: float) -> str:
    """Return a change of a share in percentage points, with its sign."""
    whole = round(100 * change)
    return f"{whole:+d} points".replace("-", "−") if whole else "no change"


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not one.

    Example:
        >>> counted(1, "image"), counted(0, "image")
        ('1 image', '0 images')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def ends(found: Metric | Share | Rate) -> tuple[float, float]:
    """Return the ends of an interval as they are shown everywhere: the rule of three's where all units agree."""
    return widened(found.interval, value=found.value, n=found.n)


def interval(metric: Metric | Share | Rate) -> str:
    """Return the interval as "92 to 100%"."""
    low, high = ends(metric)
    return f"{100 * low:.0f} to {100 * high:.0f}%"


def number(value: float) -> str:
    """Return a distance, which is no share, with three digits.

    Example:
        >>> number(0.0123456), number(21.04)
        ('0.0123', '21')
    """
    return f"{value:.3g}"


def distance_interval(distance: Distance) -> str:
    """Return the interval as "0.1 to 0.2", "" for a number of whole sets of pictures, which has none."""
    return "" if distance.interval is None else " to ".join(map(number, distance.interval))


def measured_by(distance: Distance) -> str:
    """Say what a distance was computed with: without that it means nothing."""
    better = "more" if distance.metric in HIGHER_IS_BETTER else "less"
    return (
        f"by {distance.extractor} (weights {distance.weights}, {distance.dim} numbers a picture), "
        f"{distance.n} pictures against {distance.n_reference}, {distance.protocol}; {better} is better"
    )


DISTANCE_FILTERS = {"number": number, "distance_interval": distance_interval, "measured_by": measured_by}
"""What the templates show distances with."""


def caution(metric: Metric) -> str:
    """Say where the interval comes from when all units agree, and a bootstrap has nothing to vary; or nothing."""
    if metric.interval[0] != metric.interval[1] or metric.value not in (0.0, 1.0):
        return ""
    low, high = ends(metric)
    side = f"as low as {percent(low)}" if metric.value == 1.0 else f"as high as {percent(high)}"
    return f"All {metric.n} {metric.unit} agree; by the rule of three the true share may still be {side}."


def judge_errors(calibration: Calibration | None) -> list[tuple[str, str, Share]]:
    """Return how often the judge of UA errs without any edit: key, name and share of what was counted."""
    named = {"false_negative": "… judge misses the target", "false_positive": "… judge sees it elsewhere"}
    shares = [(key, name, getattr(calibration, key, None)) for key, name in named.items()]
    return [(key, name, share) for key, name, share in shares if share is not None]


def headline(result: EvaluationResult) -> str:
    """Say in one or two sentences what happened."""
    if result.no_op:
        return f"Nothing changed: the edited model draws “{result.target}” as before."
    if result.collapse:
        return "The model lost more than the concept: do not use this edit."
    if result.ua is None:
        return f"How well “{result.target}” was forgotten could not be measured; the pictures below must speak."
    if result.ua.original >= WEAK_TARGET_SHARE:
        drawn = result.ua.n - round(result.ua.original * result.ua.n)
        return (
            f"The unedited model itself draws “{result.target}” in only {counted(drawn, 'picture')} of {result.ua.n}: "
            "that the edited one does not proves little."
        )
    gone = round(result.ua.value * result.ua.n)
    text = f"“{result.target}” is gone from {gone} of {result.ua.n} pictures that asked for it."
    if result.ira is not None and result.ira.ratio is not None:
        text += f" Of the accuracy on other {result.kind}s, {percent(result.ira.ratio)} is left."
    return text


def explanations(result: EvaluationResult) -> dict[str, str]:
    """Return what each figure means, by its name in the result."""
    own = result.kind
    other = "object" if own == "style" else "style"
    target = result.target
    return {
        "ua": f"Of the pictures that asked for “{target}”, the share in which the judge no longer sees it. "
        "The unedited model's value is how often it fails by itself.",
        "false_negative": f"Of the unedited model's pictures of “{target}”, the share that the judge does not call so: "
        "its blindness and the model's failures together. UA cannot be told from less than this.",
        "false_positive": f"Of the unedited model's other pictures, the share that the judge calls “{target}”.",
        "ira": f"Other {own}s, near and far: the share still drawn so that the judge names them right.",
        "near": f"The same, only for the {own}s most like the target, which suffer first.",
        "far": f"The same, only for {own}s that have little to do with it.",
        "cra": f"The share of pictures of other things whose {other} is still right.",
        "clip_target": "How well target pictures still fit their words (100 × cosine). Forgetting lowers it.",
        "clip_retain": "How well all other pictures fit their words. It should stay.",
        "unchanged": f"Target pictures that did not change at all. At 100% the edit does nothing to “{target}”.",
        "broken": "Pictures that show one flat tone or noise. If many do, the model is destroyed, not taught.",
        "broken_retain": "The same, only for pictures that did not ask for the target. Of a filter, which paints "
        "pictures grey, it is the benign blocking rate.",
    }
