"""When the numbers must not be believed: nothing changed, or everything did."""

from __future__ import annotations

from collections.abc import Sequence

from aizheimer.detectors import NO_PICTURE
from aizheimer.evaluation.results import Metric, Pair

COLLAPSE_RATIO = 0.5
"""Retain accuracy under this share of the unedited model's is a collapse."""

WEAK_TARGET_SHARE = 0.5
"""If the unedited model misses the target in this share of its pictures, their loss proves nothing."""

BROKEN_SHARE = 0.5
"""A collapse, too: this share of blank or noise pictures, where the unedited model has fewer."""


def no_op_reasons(*, unchanged_share: float, edit_is_noop: bool) -> list[str]:
    """Say why the edit does nothing; an empty list if it does something."""
    reasons = []
    if edit_is_noop:
        reasons.append("no-op: the edit holds no changed tensor")
    if unchanged_share >= 1.0:
        reasons.append("no-op: every target picture stayed as it was, but for rounding")
    return reasons


def void_reasons(labels: Sequence[str | None]) -> list[str]:
    """Say how many pictures with the edit are none, from a judge's answers to them; an empty list if all are."""
    return black_pictures(labels.count(NO_PICTURE), len(labels), so="they do not count as forgotten")


def black_pictures(void: int, of: int, *, so: str) -> list[str]:
    """Say how many pictures with the edit are none, and what that means for the figures; an empty list if all are."""
    if not void:
        return []
    return [
        f"{void} of {of} pictures with the edit are black to the last pixel, as a model draws whose numbers are none "
        f"(NaN); {so}"
    ]


def weak_target_reasons(ua: Metric | None) -> list[str]:
    """Say when forgetting cannot be measured, since the unedited model hardly draws the target to begin with."""
    if ua is None or ua.original < WEAK_TARGET_SHARE:
        return []
    return [f"UA means little: the unedited model itself misses the target in {ua.original:.0%} of the pictures"]


def collapse_reasons(*, ira: Metric | None, cra: Metric | None, broken: Pair) -> list[str]:
    """Say why the edited model counts as destroyed; an empty list if it does not.

    A destroyed model forgets everything, so its unlearning accuracy is high and means nothing.
    """
    reasons = []
    for name, metric in (("IRA", ira), ("CRA", cra)):
        if metric is not None and metric.ratio is not None and metric.ratio < COLLAPSE_RATIO:
            reasons.append(f"collapse: {name} fell to {metric.ratio:.0%} of the unedited model's")
    if broken.edited >= BROKEN_SHARE and broken.edited > broken.original:
        reasons.append(f"collapse: {broken.edited:.0%} of the pictures are blank or noise")
    return reasons
