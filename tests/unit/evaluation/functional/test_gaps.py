"""Group gaps: by hand, against the paired test for two groups, and under no difference at all."""

import numpy as np
import pytest

from aizheimer.evaluation.functional.gaps import largest_gap
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


@pytest.mark.parametrize("groups", [{}, {"x": {"a": 1.0}}, {"x": {"a": 1.0}, "y": {}}])
def test_too_few(groups):
    with pytest.raises(ValueError, match="wanted two or more"):
        largest_gap(groups, seed=0)
