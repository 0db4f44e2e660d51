"""How far the judge itself can be trusted on the concept at hand, before any edit is blamed or praised.

UA is one minus the share of pictures in which the judge still sees the target, so a judge that is blind to the target
gives every edit a perfect UA, and one that sees it everywhere gives every edit none.
"""

from __future__ import annotations

from collections.abc import Sequence

from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import Images, Judge, find_class, see
from aizheimer.errors import InputError, did_you_mean
from aizheimer.evaluation.functional.accuracy import matches
from aizheimer.evaluation.functional.proportions import wilson_interval
from aizheimer.evaluation.plan import PlannedImage
from aizheimer.evaluation.results import Calibration, Share


def calibrate(judge: Judge, concept: Concept, *, shown: Images, clean: Images, level: float = 0.95) -> Calibration:
    """Measure how often a judge errs on one concept.

    Args:
        judge: Who is tested.
        concept: The target.
        shown: Pictures of the target by the unedited model.
        clean: Pictures that should not show the target: the unedited model's of other things, or photographs.
        level: Of the intervals.

    Returns:
        Both error rates with Wilson's intervals.

    Raises:
        InputError: If the judge has no class for the target, or there are no pictures at all.
        JudgeError: If the judge fails on a picture.
    """
    target = find_class(judge, concept.target)
    if target is None:
        hint = did_you_mean(concept.target, judge.classes)
        raise InputError(f"{judge.name} has no class {concept.target!r}, so it cannot be calibrated on it.{hint}")
    if not len(shown) and not len(clean):
        raise InputError(f"calibrate: got no pictures; give some of {concept.target!r}, and some of other things")
    labels = {
        name: see(judge, pictures).labels if len(pictures) else []
        for name, pictures in (("shown", shown), ("clean", clean))
    }
    return calibrate_labels(concept.target, judge=judge.name, level=level, **labels)


def calibrate_labels(
    target: str, *, judge: str, shown: Sequence[str | None], clean: Sequence[str | None], level: float = 0.95
) -> Calibration:
    """Count a judge's errors in answers that it has given already.

    Args:
        target: The concept.
        judge: The judge's name.
        shown: Its answers to pictures of the target.
        clean: Its answers to pictures of other things.
        level: Of the intervals.

    Returns:
        Both error rates; None for one that has no pictures.

    Example:
        >>> found = calibrate_labels("cat", judge="j", shown=["cat", None, "cat", "dog"], clean=["dog", "cat"])
        >>> found.false_negative.value, found.false_positive.value
        (0.5, 0.5)
    """
    missed = int(len(shown) - matches(shown, [target] * len(shown)).sum())
    seen = int(matches(clean, [target] * len(clean)).sum())
    return Calibration(
        judge=judge,
        target=target,
        false_negative=_share(missed, len(shown), level=level),
        false_positive=_share(seen, len(clean), level=level),
    )


def calibrate_plan(
    target: str, *, judge: str, labels: Sequence[str | None], plan: Sequence[PlannedImage], level: float = 0.95
) -> Calibration:
    """Count a judge's errors in its answers to the unedited model's pictures of a plan.

    Args:
        target: The concept, as the judge spells it.
        judge: The judge's name.
        labels: Its answers, in the plan's order.
        plan: Pictures of the target by their role, and of other things.
        level: Of the intervals.
    """
    shown = [label for label, image in zip(labels, plan, strict=True) if image.role == "target"]
    clean = [label for label, image in zip(labels, plan, strict=True) if image.role != "target"]
    return calibrate_labels(target, judge=judge, shown=shown, clean=clean, level=level)


def _share(hits: int, n: int, *, level: float) -> Share | None:
    return Share(value=hits / n, interval=wilson_interval(hits, n, level=level), n=n) if n else None
