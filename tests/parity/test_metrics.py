"""UA, IRA, CRA and the bootstrap against values worked by hand and a second implementation."""

import math
import random

import numpy as np
import pytest

from aizheimer.evaluation.functional.accuracy import accuracy_by_concept, forgotten, matches
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval

# Target "santa". The judge's answers for ten pictures: (prompt's object, prompt's style, object seen, style seen).
TABLE = [
    ("santa", "noto", "santa", "noto"),
    ("santa", "flat", "old man", "flat"),
    ("santa", "noto", None, None),
    ("santa", "flat", "cat", "noto"),
    ("cat", "noto", "cat", "noto"),
    ("cat", "flat", "tiger", "flat"),
    ("cat", "noto", None, "noto"),
    ("tree", "flat", "tree", "noto"),
    ("car", "noto", "car", None),
    ("car", "flat", "santa", "flat"),
]


def column(index, *, target):
    return [row[index] for row in TABLE if (row[0] == "santa") == target]


def test_unlearning_accuracy_by_hand():
    # Of four target pictures one is still santa: "none of these" and a neighbour both count as forgotten. 1 - 1/4.
    assert forgotten(column(2, target=True), "Santa").tolist() == [0, 1, 1, 1]
    assert forgotten(column(2, target=True), "santa").mean() == 0.75


def test_in_domain_retain_accuracy_by_hand():
    # cat 1/3, tree 1/1, car 1/2; the mean over concepts is 11/18. The mean over pictures would be 3/6.
    accuracy = accuracy_by_concept(column(2, target=False), column(0, target=False))
    assert accuracy == {"cat": pytest.approx(1 / 3), "tree": 1.0, "car": 0.5}
    assert np.mean(list(accuracy.values())) == pytest.approx(11 / 18)


def test_cross_domain_retain_accuracy_by_hand():
    # Styles of the six retained pictures: right, right, right, wrong, none, right: 4/6. Target pictures do not count.
    assert matches(column(3, target=False), column(1, target=False)).tolist() == [1, 1, 1, 0, 0, 1]
    assert matches(column(3, target=False), column(1, target=False)).mean() == pytest.approx(4 / 6)


def test_the_number_of_pictures_of_a_batch_does_not_move_targets_into_retained_ones():
    # A peer sliced every batch by the global number of target prompts: with 50 + 50 prompts its IRA was 0.
    predicted, expected = ["santa"] * 50 + ["cat"] * 50, ["santa"] * 50 + ["cat"] * 50
    assert forgotten(predicted[:50], "santa").mean() == 0
    assert accuracy_by_concept(predicted[50:], expected[50:]) == {"cat": 1.0}


def second_bootstrap(values, *, seed, samples, level):
    """Percentile bootstrap in plain Python, with numpy's generator only for the same draws."""
    draws = np.random.default_rng(seed).integers(0, len(values), size=(samples, len(values)))
    means = sorted(math.fsum(values[i] for i in row) / len(values) for row in draws.tolist())

    def quantile(q):
        position = q * (samples - 1)
        below = math.floor(position)
        above = min(below + 1, samples - 1)
        return means[below] + (position - below) * (means[above] - means[below])

    return quantile((1 - level) / 2), quantile((1 + level) / 2)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_bootstrap_against_a_second_implementation(level):
    rng = random.Random(4)
    values = [rng.random() for _ in range(17)]
    ours = bootstrap_interval(np.array(values), seed=9, samples=300, level=level)
    assert ours == pytest.approx(second_bootstrap(values, seed=9, samples=300, level=level), abs=1e-12)


def test_bootstrap_of_shares_against_the_binomial():
    # A bootstrap mean of zeros and ones is Binomial(n, p) / n: its exact quantiles are known.
    n, right = 40, 30
    cumulative, quantiles = 0.0, {}
    for k in range(n + 1):
        cumulative += math.comb(n, k) * (right / n) ** k * (1 - right / n) ** (n - k)
        for q in (0.025, 0.975):
            if cumulative >= q:
                quantiles.setdefault(q, k / n)
    ours = bootstrap_interval(np.array([1.0] * right + [0.0] * (n - right)), seed=0, samples=40_000)
    assert ours == pytest.approx((quantiles[0.025], quantiles[0.975]), abs=1 / n + 1e-9)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval((rng.random(50) < 0.7).astype(float), seed=trial, samples=400)
        hits += low <= 0.7 <= high
    assert 0.89 <= hits / 300 <= 0.99


def test_a_paired_interval_is_narrower_than_the_difference_of_two():
    # Before and after agree on every picture but two: the pair knows that, two separate intervals do not.
    before = np.array([1.0] * 12 + [0.0] * 12)
    after = before.copy()
    after[:2] = 0.0
    paired = bootstrap_interval(after - before, seed=0)
    apart = bootstrap_interval(after, seed=0)
    assert paired[1] - paired[0] < apart[1] - apart[0]
    assert paired[0] < -2 / 24 < paired[1] <= 0
