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


@pytest.mark.parametrize("form", ["exponential", "logistic"])
def test_resamples_without_damage_are_no_short_distances(form):
    """With 2 of 60 concepts damaged a tenth of the resamples hold none; each counted as the narrowest curve's 0.002."""
    x, y = np.linspace(0.03, 1.0, 60), np.zeros(60)
    y[:2] = 1
    fit = fit_damage(x, y, form=form)
    rows = np.random.default_rng(0).integers(0, 60, size=(200, 60))
    assert fit.degenerate == pytest.approx((rows > 1).all(axis=1).mean())
    assert 0.1 < fit.degenerate < 0.25
    low, high = fit.interval
    assert 0.02 < low < fit.half_distance < high
    assert fit.reason == ""


def test_one_damaged_concept_has_a_distance_and_no_interval():
    x, y = np.linspace(0.03, 1.0, 60), np.zeros(60)
    y[1] = 1
    fit = fit_damage(x, y, form="logistic")
    assert fit.half_distance is not None
    assert fit.interval is None
    assert fit.degenerate == pytest.approx(np.exp(-1), abs=0.08)
    assert (
        fit.reason
        == f"no interval: {fit.degenerate:.0%} of the resamples hold no damage, for it is of too few concepts"
    )


@pytest.mark.parametrize(("level", "form"), [(0.6, "logistic"), (0.5, "logistic"), (0.0, "exponential")])
def test_a_curve_without_a_half_distance_still_has_its_level(level, form):
    fit = fit_damage(X, np.full(50, level), form=form, **FEW)
    assert fit.half_distance is None
    assert fit.at(X) == pytest.approx(np.full(50, level), abs=1e-3)


def test_a_curve_that_halves_beyond_the_measured_distances_follows_the_damage():
    damage = logistic(X, 0.9, 1.3, 0.3)
    fit = fit_damage(X, damage, form="logistic", **FEW)
    assert "not halved within" in fit.reason
    assert np.abs(fit.at(X) - damage).max() < 0.15


def test_equal_damage_is_explained_by_nothing():
    """The mean of 60 times 0.6 is off by its last bit: that was a variance, and 1 - SSE / SST was -1e29."""
    assert fit_damage(np.linspace(0.03, 1, 60), np.full(60, 0.6), **FEW).explained == 0


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
