"""A curve in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], *, width: int = 32) -> str:
    """Draw values as blocks between their own least and greatest; only the last ``width`` of them.

    A value that is not finite is drawn as a gap, and a constant curve as its lowest level.

    Example:
        >>> sparkline([0.0, 0.5, 1.0])
        '▁▅█'
    """
    shown = list(values)[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    low, span = (min(finite), max(finite) - min(finite)) if finite else (0.0, 0.0)
    return "".join(_block(value, low=low, span=span) for value in shown)


def _block(value: float, *, low: float, span: float) -> str:
    if not math.isfinite(value):
        return " "
    share = (value - low) / span if span > 0 else 0.0
    return _LEVELS[min(int(share * len(_LEVELS)), len(_LEVELS) - 1)]
