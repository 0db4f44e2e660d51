"""How far a mean could move if the same measurement were made again."""

from __future__ import annotations

import numpy as np


def bootstrap_interval(
    values: np.ndarray, *, seed: int, samples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean.

    The n values are drawn n times with replacement; the interval spans the middle ``level`` of the means of
    ``samples`` such draws. It is reproducible: the draws come from ``numpy.random.default_rng(seed)``.

    Trap: n equal values give an interval of no width, which is not certainty. With n pictures all right, the true
    rate may by the rule of three still be as low as 1 - 3/n.

    Args:
        values: (n,) measurements; the units must be independent (pictures, or concepts).
        seed: Of the draws.
        samples: Number of draws.
        level: In (0, 1).

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If there are no values, or ``level`` is not inside (0, 1).

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Example:
        >>> bootstrap_interval(np.ones(5), seed=0)
        (1.0, 1.0)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"bootstrap: got values of shape {values.shape}, wanted a non-empty vector")
    if not 0.0 < level < 1.0:
        raise ValueError(f"bootstrap: got level {level}, wanted a number between 0 and 1")
    draws = np.random.default_rng(seed).integers(0, values.size, size=(samples, values.size))
    means = values[draws].mean(axis=1)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)
