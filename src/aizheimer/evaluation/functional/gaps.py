"""Was one group hurt more than another: the largest gap between groups, and whether chance would bring it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import comb

import numpy as np


@dataclass(frozen=True, kw_only=True)
class GroupGap:
    """The two groups furthest apart.

    Args:
        most: Group with the largest mean.
        least: Group with the smallest.
        gap: Difference of the two means, never negative.
        interval: Bootstrap interval of the difference between these two groups. It is of a gap that was chosen for
            being the largest, so that it leans away from zero; the test takes the choice into account.
        n: What bounds it, where all agree: the pairs, or the size of the smallest group. Members of all groups together
            are no n of a difference.
        p_value: Share of random exchanges between groups whose largest gap is at least as large.
        least_p_value: The smallest that groups of these sizes can have; see `least_p_value`.
        distinguishable: Both are at most 1 - level.
        paired: Whether groups were compared counterpart by counterpart.
    """

    most: str
    least: str
    gap: float
    interval: tuple[float, float]
    n: int
    p_value: float
    least_p_value: float
    distinguishable: bool
    paired: bool


def largest_gap(
    groups: Mapping[str, Mapping[str, float]], *, seed: int, samples: int = 2000, level: float = 0.95
) -> GroupGap:
    """Compare the means of groups and test the largest gap.

    The test is a permutation test of the statistic max - min over the groups' means. If all groups have the same
    members by name ("teacher" among men and among women), values are exchanged within a name only, which takes out that
    some are harder to draw than others; else all values are exchanged freely. Hits are counted as
    (1 + hits) / (1 + samples).

    Args:
        groups: Group to member to value, a loss of accuracy for instance. The unit is the member.
        seed: Of the draws.
        samples: Number of draws.
        level: Of the interval and the test.

    Returns:
        The gap; ties go to the first group.

    Raises:
        ValueError: If there are fewer than two groups, or one is empty.

    Example:
        >>> names = "abcdefgh"
        >>> found = largest_gap({"men": dict.fromkeys(names, 0.0), "women": dict.fromkeys(names, 0.5)}, seed=0)
        >>> found.most, found.gap, found.distinguishable
        ('women', 0.5, True)
    """
    if len(groups) < 2 or not all(groups.values()):
        raise ValueError(
            f"groups: got {[(name, len(g)) for name, g in groups.items()]}, wanted two or more, none empty"
        )
    names = list(groups)
    values, paired = _values(groups)
    means = [float(group.mean()) for group in values]
    most, least = int(np.argmax(means)), int(np.argmin(means))
    gap = means[most] - means[least]
    rng = np.random.default_rng(seed)
    drawn = _paired_gaps(np.stack(values), rng, samples) if paired else _free_gaps(values, rng, samples)
    p_value = float((1 + (drawn >= gap * (1 - 1e-9)).sum()) / (1 + samples)) if gap > 0 else 1.0
    sizes = [len(group) for group in values]
    least_p = least_p_value(sizes, paired=paired)
    return GroupGap(
        most=names[most],
        least=names[least],
        gap=gap,
        interval=_interval(values[most], values[least], rng, paired=paired, samples=samples, level=level),
        n=min(sizes),
        p_value=p_value,
        least_p_value=least_p,
        # The draws are random: a p-value of 0.063 is met by 0.05 of them now and then.
        distinguishable=max(p_value, least_p) <= 1.0 - level + 1e-12,
        paired=paired,
    )


def least_p_value(sizes: Sequence[int], *, paired: bool) -> float:
    """Return the smallest p-value that the permutation test can give groups of these sizes, whatever they hold.

    The largest gap there can be puts all of the highest values into one group a and all of the lowest into another b.
    Dealing at random does so for one ordered pair (a, b) of g groups with probability

        (1 / g(g - 1))ⁿ                            where n counterparts are exchanged within a name,
        nₐ! n_b! (N - nₐ - n_b)! / N!              where all N values are dealt out anew,

    and does as well for every other ordered pair of groups of the same two sizes. Equal values only add to it.

    Args:
        sizes: Members of each group; n of each where they are paired.
        paired: Which of the two tests.

    Returns:
        In (0, 1]: above 1 - level, no gap can be distinguishable.

    Example:
        >>> least_p_value([5, 5], paired=True), least_p_value([3, 3], paired=False)
        (0.0625, 0.1)
    """
    if paired:
        ways = len(sizes) * (len(sizes) - 1)
        return float(ways) ** (1 - sizes[0])
    total, ordered = sum(sizes), list(permutations(sizes, 2))
    return min(ordered.count((a, b)) / (comb(total, a) * comb(total - a, b)) for a, b in set(ordered))


def _values(groups: Mapping[str, Mapping[str, float]]) -> tuple[list[np.ndarray], bool]:
    """Return each group's values, and whether its members are the others' counterparts: then in one order."""
    members = [list(group) for group in groups.values()]
    paired = all(set(own) == set(members[0]) for own in members)
    if paired:
        members = [members[0]] * len(members)
    rows = zip(groups.values(), members, strict=True)
    return [np.array([group[member] for member in own], dtype=np.float64) for group, own in rows], paired


def _paired_gaps(table: np.ndarray, rng: np.random.Generator, samples: int) -> np.ndarray:
    """Return max - min of the means (samples,) after exchanging the groups (rows) within each member (column)."""
    found = np.empty(samples)
    for i in range(samples):
        means = rng.permuted(table, axis=0).mean(axis=1)
        found[i] = means.max() - means.min()
    return found


def _free_gaps(values: list[np.ndarray], rng: np.random.Generator, samples: int) -> np.ndarray:
    """Return max - min of the means (samples,) after dealing all values out anew."""
    pool, ends = np.concatenate(values), np.cumsum([len(group) for group in values])[:-1]
    found = np.empty(samples)
    for i in range(samples):
        means = [part.mean() for part in np.split(rng.permutation(pool), ends)]
        found[i] = max(means) - min(means)
    return found


def _interval(
    most: np.ndarray, least: np.ndarray, rng: np.random.Generator, *, paired: bool, samples: int, level: float
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the difference; members are drawn together if they are paired."""
    rows = rng.integers(0, len(most), size=(samples, len(most)))
    others = rows if paired else rng.integers(0, len(least), size=(samples, len(least)))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(most[rows].mean(axis=1) - least[others].mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)
