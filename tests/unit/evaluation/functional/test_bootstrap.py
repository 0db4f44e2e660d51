import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aizheimer.evaluation.functional.bootstrap import bootstrap_interval


def test_same_seed_same_interval_and_no_global_state():
    values = np.random.default_rng(1).random(30)
    np.random.seed(0)
    first = bootstrap_interval(values, seed=3)
    np.random.seed(1)
    assert bootstrap_interval(values, seed=3) == first
    assert bootstrap_interval(values, seed=4) != first


def test_more_values_narrow_it():
    rng = np.random.default_rng(0)
    few, many = (bootstrap_interval(rng.random(n), seed=0) for n in (20, 2000))
    assert many[1] - many[0] < few[1] - few[0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 9))
def test_stays_inside_the_values(values, seed):
    low, high = bootstrap_interval(np.array(values), seed=seed, samples=50)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12


@pytest.mark.parametrize("values", [np.array([]), np.ones((2, 2))])
def test_needs_a_vector(values):
    with pytest.raises(ValueError, match="non-empty vector"):
        bootstrap_interval(values, seed=0)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_needs_a_level(level):
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(np.ones(3), seed=0, level=level)
