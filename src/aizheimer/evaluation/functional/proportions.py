"""How far a share of few pictures can be trusted."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(hits: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share, which has a width even where all n agree.

    With p = hits / n and z the quantile of the normal distribution at (1 + level) / 2:

        (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)

    It suits an error rate of a judge, where 0 of 20 is the usual finding: a bootstrap would call that certain.

    Args:
        hits: Pictures counted, 0 to n.
        n: Pictures in all, 1 or more.
        level: In (0, 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: If a number is out of range.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Example:
        >>> [round(end, 3) for end in wilson_interval(0, 10)]
        [0.0, 0.278]
    """
    if n < 1 or not 0 <= hits <= n or not 0.0 < level < 1.0:
        raise ValueError(f"Wilson: got {hits} of {n} at level {level}; wanted 0 <= hits <= n, n >= 1, 0 < level < 1")
    share, z = hits / n, NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if hits == 0 else (middle - spread) / scale
    high = 1.0 if hits == n else (middle + spread) / scale
    return low, high
