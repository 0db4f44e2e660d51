"""Damage curves: synthetic ones whose half distance is known, and those that have none."""

import numpy as np
import pytest

from aizheimer.evaluation.functional.damage import fit_damage

X = np.linspace(0.03, 1.0, 50)
FEW = {"samples": 30, "seed": 0}


def logistic(x, a, m, s):
    return a / (1 + np.exp((x - m) / s))


@pytest.mark.parametrize(("amplitude", "width"), [(0.9, 0.1), (0.5, 0.3), (1.0, 0.05)])
def test_an_exponential_is_found_again(amplitude, width):
    fit = fit_damage(X, amplitude * np.exp(-X / width), **FEW)
    assert fit.amplitude == pytest.approx(amplitude, rel=0.01)
    assert fit.half_distance == pytest.approx(width * np.log(2), rel=0.01)
    assert fit.explained == pytest.approx(1, abs=1e-4)
    assert fit.at(np.array([fit.half_distance]))[0] == pytest.approx(fit.amplitude / 2, rel=1e-6)


@pytest.mark.parametrize(("amplitude", "middle", "width"), [(0.9, 0.3, 0.05), (0.6, 0.6, 0.08)])
def test_a_logistic_is_found_again(amplitude, middle, width):
    fit = fit_damage(X, logistic(X, amplitude, middle, width), form="logistic", **FEW)
    assert fit.amplitude == pytest.approx(amplitude, rel=0.02)
    assert fit.half_distance == pytest.approx(middle, abs=0.01)
    assert fit.at(np.array([fit.half_distance]))[0] == pytest.approx(fit.amplitude / 2, rel=1e-6)


@pytest.mark.parametrize("form", ["exponential", "logistic"])
def test_it_is_the_least_squares(form):
    """No other amplitude, middle or width, from an independent random search, is better."""
    rng = np.random.default_rng(0)
    y = 0.7 * np.exp(-X / 0.2) + rng.normal(0, 0.05, len(X))
    fit = fit_damage(X, y, form=form, **FEW)
    ours = ((y - fit.at(X)) ** 2).sum()
    for _ in range(4000):
        a, m, s = rng.random(), rng.random(), 10 ** rng.uniform(-2.3, 0.4)
        curve = a * np.exp(-X / s) if form == "exponential" else logistic(X, a, m, s)
        assert ours <= ((y - curve) ** 2).sum() + 1e-4


def test_the_interval_holds_the_truth_when_counts_are_noisy():
    rng = np.random.default_rng(1)
    y = rng.binomial(6, 0.9 * np.exp(-X / 0.25)) / 6
    fit = fit_damage(X, y, samples=100)
    low, high = fit.interval
    assert low <= fit.half_distance <= high
    assert low < 0.25 * np.log(2) < high


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (np.zeros(50), "no damage"),
        (np.full(50, -0.2), "no damage"),
        (np.full(50, 0.5), "distance explains 0% of the damage"),
        (np.arange(50) % 2 * 0.5, "distance explains"),
        (1 - 0.3 * X, "not halved within"),
    ],
)
def test_no_distance_where_there_is_none(damage, reason):
    fit = fit_damage(X, damage, **FEW)
    assert fit.half_distance is None
    assert fit.interval is None
    assert reason in fit.reason


def test_too_few_or_crooked():
    with pytest.raises(ValueError, match="got 5 concepts, wanted 6"):
        fit_damage(X[:5], X[:5])
    with pytest.raises(ValueError, match="equal length"):
        fit_damage(X, X[:7])
