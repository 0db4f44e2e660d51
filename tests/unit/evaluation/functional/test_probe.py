"""A linear probe: by hand on few points, and honest about people that it has not seen."""

import numpy as np
import pytest

from aizheimer.evaluation.functional.probe import fit_probe, held_out_accuracy


def test_by_hand_in_one_dimension():
    """Means 1 and 5; within sides the covariance is 1, so w = (1 - 5) / (1 + 1) = -2, and the middle -2 * 3."""
    features = np.array([[0.0], [2.0], [4.0], [6.0]])
    probe = fit_probe(features, np.array([True, True, False, False]))
    assert probe.direction == pytest.approx([-2.0])
    assert probe.middle == pytest.approx(-6.0)
    assert probe.on_first(np.array([[2.9], [3.1]])).tolist() == [True, False]


def test_by_hand_in_two_dimensions():
    """Within sides the covariance is diag(1, 9), its mean eigenvalue 5: w = (-4 / 6, 0 / 14)."""
    features = np.array([[-1.0, -3.0], [1.0, 3.0], [-1.0, 3.0], [1.0, -3.0]])
    both = np.concatenate([features, features + np.array([4.0, 0.0])])
    probe = fit_probe(both, np.arange(8) < 4)
    assert probe.direction == pytest.approx([-4 / 6, 0.0])


def test_how_many_pictures_a_side_has_moves_nothing():
    features = np.array([[0.0], [2.0], [4.0], [6.0]])
    more = np.concatenate([features, np.tile(features[2:], (9, 1))])
    sides = np.arange(len(more)) < 2
    assert fit_probe(more, sides).middle / fit_probe(more, sides).direction[0] == pytest.approx(3.0)


def test_the_scale_of_the_features_does_not_matter():
    rng = np.random.default_rng(0)
    features, first = rng.normal(size=(20, 6)), np.arange(20) < 10
    new = rng.normal(size=(50, 6))
    small = fit_probe(features / 1000, first).on_first(new / 1000)
    assert small.tolist() == fit_probe(features, first).on_first(new).tolist()


def test_it_finds_a_trait_in_people_it_was_not_fitted_on():
    rng = np.random.default_rng(0)
    first = np.arange(40) < 20
    features = rng.normal(size=(40, 16)) + 3 * first[:, None] * np.eye(16)[0]
    assert held_out_accuracy(features, first, [f"person {i // 2}" for i in range(40)]) > 0.9


def test_people_that_are_learned_by_heart_are_no_trait():
    """Every person has a direction of its own; within the fit all are told apart, of a new one nothing is known."""
    people = np.repeat(np.eye(12), 5, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(60, 12))
    first = np.arange(60) // 5 % 2 == 0
    assert (fit_probe(people, first).on_first(people) == first).all()
    assert held_out_accuracy(people, first, [str(i // 5) for i in range(60)]) < 0.7


def test_a_side_without_a_picture():
    with pytest.raises(ValueError, match="a side has no picture"):
        fit_probe(np.zeros((3, 2)), np.array([True, True, True]))
