"""Group gaps: by hand, against the paired test for two groups, and under no difference at all."""

from itertools import permutations, product

import numpy as np
import pytest

from aizheimer.evaluation.functional.gaps import largest_gap, least_p_value
from aizheimer.evaluation.functional.paired import sign_flip_p_value

NAMES = tuple("abcdefghijkl")


def group(values):
    return dict(zip(NAMES, values, strict=False))


def test_by_hand():
    found = largest_gap({"x": group([0.1, 0.3]), "y": group([0.0, 0.0]), "z": group([0.5, 0.7])}, seed=0, samples=200)
    assert (found.most, found.least) == ("z", "y")
    assert found.gap == pytest.approx(0.6)
    assert found.paired


def test_two_groups_are_the_sign_flip_test_of_their_pairs():
    rng = np.random.default_rng(0)
    men, women = rng.random(9), rng.random(9) + 0.15
    found = largest_gap({"men": group(men), "women": group(women)}, seed=0, samples=5000)
    assert found.p_value == pytest.approx(sign_flip_p_value(women - men, seed=0), abs=0.02)


def test_members_are_matched_by_name_and_not_by_place():
    men = {"teacher": 0.0, "cook": 0.5, "singer": 1.0, "farmer": 0.2, "guard": 0.7, "pilot": 0.4}
    women = {name: men[name] + 0.1 for name in reversed(men)}
    found = largest_gap({"men": men, "women": women}, seed=0, samples=2000)
    assert found.paired
    assert found.p_value < 0.06
    assert found.interval == pytest.approx((0.1, 0.1))
    loose = largest_gap({"men": men, "women": {f"{name}2": value for name, value in women.items()}}, seed=0)
    assert not loose.paired
    assert loose.p_value > 0.5, "unpaired, the same gap drowns in how much the members differ"


def test_the_largest_of_many_gaps_is_no_discovery():
    """With six groups alike, the largest of fifteen gaps is often large: testing that pair alone would be fooled."""
    rng = np.random.default_rng(0)
    calls, naive = [], []
    for trial in range(60):
        groups = {str(g): group(rng.random(10)) for g in range(6)}
        found = largest_gap(groups, seed=trial, samples=200)
        calls.append(found.distinguishable)
        difference = np.array([groups[found.most][n] - groups[found.least][n] for n in NAMES[:10]])
        naive.append(sign_flip_p_value(difference, seed=trial) <= 0.05)
    assert np.mean(calls) <= 0.1
    assert np.mean(naive) > 0.15


def test_no_gap():
    found = largest_gap({"x": group([0.2, 0.2, 0.2]), "y": group([0.2, 0.2, 0.2])}, seed=0, samples=100)
    assert (found.gap, found.p_value, found.distinguishable) == (0, 1, False)
    assert found.interval == (0, 0)


def test_three_pairs_prove_nothing():
    found = largest_gap({"x": group([1.0, 1.0, 1.0]), "y": group([0.0, 0.0, 0.0])}, seed=0, samples=500)
    assert found.p_value > 0.2
    assert not found.distinguishable


def spread_of(groups):
    return max(np.mean(g) for g in groups) - min(np.mean(g) for g in groups)


@pytest.mark.parametrize(("groups", "n"), [(2, 2), (2, 5), (3, 2), (3, 3)])
def test_the_least_p_value_of_pairs_is_that_of_the_largest_gap_among_all_exchanges(groups, n):
    """Every exchange is made: of the sizes' best case, one group all highest and another all lowest."""
    table = np.array([[float(g == groups - 1) - float(g == 0) + g / 100 for _ in range(n)] for g in range(groups)])
    gaps = [spread_of(np.array(columns).T) for columns in product(*(list(permutations(table[:, i])) for i in range(n)))]
    exact = np.mean(np.array(gaps) >= spread_of(table) - 1e-9)
    assert least_p_value([n] * groups, paired=True) == pytest.approx(exact)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 3), (1, 4), (2, 2, 2), (1, 2, 3)])
def test_the_least_p_value_of_whole_groups_is_met_by_no_deal(sizes):
    """Every order of seven distinct values at most: the best p-value that any assignment of them has."""
    ends = np.cumsum(sizes)[:-1]
    deals = list({tuple(map(frozenset, np.split(np.array(o), ends))) for o in permutations(range(sum(sizes)))})
    gaps = np.array([spread_of([list(part) for part in deal]) for deal in deals])
    best = min(np.mean(gaps >= gap - 1e-9) for gap in gaps)
    assert least_p_value(sizes, paired=False) <= best + 1e-12
    if len(sizes) == 2:
        assert best <= 2 * least_p_value(sizes, paired=False)


def test_five_pairs_are_never_distinguishable_whatever_the_draws():
    """Their smallest p-value is 0.0625; of few draws a share below 0.05 is met by chance."""
    full, none = group([1.0] * 5), group([0.0] * 5)
    found = [largest_gap({"x": full, "y": none}, seed=seed, samples=60) for seed in range(40)]
    assert min(gap.p_value for gap in found) <= 0.05, "chance does bring it"
    assert not any(gap.distinguishable for gap in found)
    assert largest_gap({"x": group([1.0] * 6), "y": group([0.0] * 6)}, seed=0).distinguishable


def test_n_is_what_the_gap_is_of_and_not_everybody():
    alike = {name: group([0.0] * 4) for name in "vwxyz"}
    assert largest_gap(alike, seed=0, samples=20).n == 4
    loose = {"x": group([0.0] * 7), "y": {"somebody": 0.0, "else": 0.0, "third": 0.0}}
    assert largest_gap(loose, seed=0, samples=20).n == 3


@pytest.mark.parametrize("groups", [{}, {"x": {"a": 1.0}}, {"x": {"a": 1.0}, "y": {}}])
def test_too_few(groups):
    with pytest.raises(ValueError, match="wanted two or more"):
        largest_gap(groups, seed=0)
