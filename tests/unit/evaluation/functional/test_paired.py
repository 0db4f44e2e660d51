"""Paired differences against hand-counted sign changes, an independent loop, and the traps of small n."""

import itertools

import numpy as np
import pytest

from aizheimer.evaluation.functional.paired import paired_difference, sign_flip_p_value

FEW = {"seed": 0, "samples": 500, "level": 0.95}


def test_the_difference_is_of_the_pairs():
    a, b = np.array([1.0, 1, 1, 0, 1, 0, 1, 1]), np.array([0.0, 1, 0, 0, 1, 0, 0, 1])
    found = paired_difference(a, b, **FEW)
    assert (found.first, found.second, found.n, found.level) == (0.625 + 0.125, 0.375, 8, 0.95)
    assert found.difference == 0.375
    assert found.interval[0] <= found.difference <= found.interval[1]


def test_every_sign_change_is_counted_when_there_are_few():
    differences = np.array([0.5, -0.25, 1.0, 0.0, 0.75])
    flips = [abs(np.dot(s, differences)) for s in itertools.product((1, -1), repeat=5)]
    wanted = np.mean([value >= abs(differences.sum()) - 1e-12 for value in flips])
    assert sign_flip_p_value(differences, seed=0) == pytest.approx(wanted)


def test_drawn_signs_agree_with_the_binomial_distribution():
    from math import comb

    differences = np.array([1.0] * 14 + [-1.0] * 6)
    wanted = 2 * sum(comb(20, k) for k in range(14, 21)) / 2**20
    assert sign_flip_p_value(differences, seed=1, samples=20_000) == pytest.approx(wanted, abs=0.01)


def test_the_edits_can_be_exchanged():
    rng = np.random.default_rng(3)
    a, b = rng.random(30), rng.random(30)
    one, other = paired_difference(a, b, **FEW), paired_difference(b, a, **FEW)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == other.p_value
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))


@pytest.mark.parametrize(("n", "sure"), [(1, False), (2, False), (5, False), (6, True), (20, True)])
def test_a_few_equal_differences_are_not_certainty(n, sure):
    """All right against all wrong: the interval has no width from the first pair on, yet two pairs prove nothing."""
    found = paired_difference(np.ones(n), np.zeros(n), **FEW)
    assert found.interval == (1, 1)
    assert found.distinguishable == sure


def test_an_interval_that_holds_zero_is_not_distinguishable():
    a, b = np.array([1.0, 0.0] * 10), np.array([0.0, 1.0] * 10)
    found = paired_difference(a, b, **FEW)
    assert found.interval[0] < 0 < found.interval[1]
    assert not found.distinguishable
    same = paired_difference(a, a, **FEW)
    assert (same.interval, same.p_value, same.distinguishable) == ((0, 0), 1, False)


def test_false_alarms_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(0)
    calls = [paired_difference(rng.random(12), rng.random(12), **FEW).distinguishable for _ in range(400)]
    assert np.mean(calls) < 0.09


def test_pairing_sees_what_the_two_means_alone_do_not():
    rng = np.random.default_rng(0)
    hard = rng.random(40)
    found = paired_difference(hard + 0.05, hard + rng.normal(0, 0.02, 40), **FEW)
    assert found.distinguishable


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]]), ([np.nan], [1.0])])
def test_what_is_no_pair_of_vectors_is_refused(a, b):
    with pytest.raises(ValueError, match="paired: got"):
        paired_difference(np.array(a), np.array(b), **FEW)


def test_the_same_seed_gives_the_same_numbers_and_no_global_state_moves():
    before = np.random.get_state()[1].copy()
    a, b = np.arange(30.0) % 3, np.arange(30.0) % 2
    assert paired_difference(a, b, **FEW) == paired_difference(a, b, **FEW)
    assert np.array_equal(before, np.random.get_state()[1])
