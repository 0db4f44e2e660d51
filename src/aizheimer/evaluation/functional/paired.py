"""Do two edits differ, or is it the luck of prompts and seeds: paired differences with an interval and a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aizheimer.evaluation.functional.bootstrap import bootstrap_interval

EXACT_UP_TO = 12
"""With so few pairs that differ, all sign changes are counted; with more, ``samples`` random ones."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How two edits differ on the same prompts and seeds.

    Args:
        first: Mean of the first.
        second: Mean of the second.
        difference: ``first - second``.
        interval: Paired bootstrap interval of ``difference``.
        p_value: Share of random exchanges of the two within pairs that bring a difference at least as large.
        distinguishable: Whether the interval leaves zero out and the test agrees (``p_value <= 1 - level``). A few
            equal differences have an interval of no width, so that the interval alone would be sure of two pairs.
        n: Pairs.
        level: Of the interval and the test.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    distinguishable: bool
    n: int
    level: float


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, seed: int, samples: int = 2000, level: float = 0.95
) -> PairedDifference:
    """Compare two edits, unit by unit.

    With d_i = a_i - b_i the difference is mean(d); its interval is the percentile bootstrap over the pairs, and the
    test is the sign-flip permutation test: if the edits were alike, each d_i could as well be -d_i.

    Args:
        a: (n,) of the first edit: 1.0 where a picture counts, or accuracy by concept.
        b: (n,) of the second, row by row for the same prompt and seed, or the same concept.
        seed: Of the draws.
        samples: Draws of the bootstrap, and of the test when there are more than ``EXACT_UP_TO`` pairs that differ.
        level: In (0, 1).

    Returns:
        The difference, and whether it is distinguishable from none.

    Raises:
        ValueError: If the lengths differ, there is nothing, or a value is not finite.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15.

    Example:
        >>> found = paired_difference(np.ones(8), np.zeros(8), seed=0)
        >>> found.difference, found.p_value, found.distinguishable
        (1.0, 0.0078125, True)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(f"paired: got shapes {first.shape} and {second.shape}, wanted two vectors of equal length")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("paired: got values that are not finite; leave out pairs that could not be measured")
    differences = first - second
    interval = bootstrap_interval(differences, seed=seed, samples=samples, level=level)
    p_value = sign_flip_p_value(differences, seed=seed, samples=samples)
    apart = not interval[0] <= 0.0 <= interval[1]
    return PairedDifference(
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(differences.mean()),
        interval=interval,
        p_value=p_value,
        distinguishable=apart and p_value <= 1.0 - level + 1e-12,
        n=len(first),
        level=level,
    )


def sign_flip_p_value(differences: np.ndarray, *, seed: int, samples: int = 2000) -> float:
    """Return how often random signs give a mean at least as far from zero as the observed one.

    Pairs without a difference say nothing and are left out. With few pairs all sign changes are counted; else it is
    (1 + hits) / (1 + samples), which is never zero.

    Args:
        differences: (n,) paired differences.
        seed: Of the draws.
        samples: Number of draws.

    Returns:
        The two-sided p-value in (0, 1]; 1 if no pair differs.

    Example:
        >>> sign_flip_p_value(np.array([1.0, 1.0]), seed=0)
        0.5
    """
    moved = differences[differences != 0]
    if moved.size == 0:
        return 1.0
    observed = abs(moved.sum()) * (1 - 1e-9)  # sums in another order differ by rounding
    if moved.size <= EXACT_UP_TO:
        codes = np.arange(2**moved.size)[:, None] >> np.arange(moved.size)
        return float((np.abs((1 - 2 * (codes & 1)) @ moved) >= observed).mean())
    hits = sum(int((np.abs(signs @ moved) >= observed).sum()) for signs in _signs(moved.size, seed, samples))
    return (1 + hits) / (1 + samples)


def _signs(size: int, seed: int, samples: int, chunk: int = 500) -> Iterator[np.ndarray]:
    """Yield ``samples`` rows of random signs, a few at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, samples, chunk):
        yield 1 - 2 * rng.integers(0, 2, size=(min(chunk, samples - start), size))
