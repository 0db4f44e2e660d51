"""How far a measured share may be from the truth: what a gate on intervals compares with its limits."""

from __future__ import annotations

from collections.abc import Sequence

RULE_OF_THREE = 3.0
"""When none of n units did it, the true share is below 3/n with 95 % confidence."""


def widened(interval: Sequence[float], *, value: float, n: int, lowest: float = 0.0) -> tuple[float, float]:
    """Return the interval, or what the rule of three allows where a bootstrap had nothing to vary.

    n units that all agree give a bootstrap interval of no width, which is not certainty: the true share may still be
    3/n away. A gate that took such an interval at its word would pass an edit on the strength of two pictures.

    Args:
        interval: Bootstrap interval of ``value``.
        value: The mean that was measured.
        n: Units averaged.
        lowest: The least that the mean can be: 0 for a share, -1 for a change of one.

    Returns:
        Lower and upper end, within ``[lowest, 1]``.

    References:
        Hanley and Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 249 (1983) 1743-1745.

    Example:
        >>> widened((1.0, 1.0), value=1.0, n=30)
        (0.9, 1.0)
    """
    low, high = float(interval[0]), float(interval[1])
    if low != high:
        return low, high
    away = min(1.0, RULE_OF_THREE / n)
    return max(lowest, value - away), min(1.0, value + away)
