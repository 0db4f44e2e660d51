"""FID, KID, CMMD and the perceptual distance against numbers worked by hand and a second implementation."""

import math

import numpy as np
import pytest
import torch

from aizheimer.errors import InputError
from aizheimer.evaluation.functional.distances import (
    LEAST_PICTURES,
    cmmd,
    frechet_distance,
    kernel_distance,
    least_pictures,
    perceptual_distance,
)


def vectors(n, dim, *, seed, scale=1.0, shift=0.0):
    return scale * np.random.default_rng(seed).normal(size=(n, dim)) + shift


class TestFID:
    def test_by_hand_in_one_dimension(self):
        # Means 1 and 3, variances 2 and 8 (n - 1): (3 - 1)² + 2 + 8 - 2 sqrt(2 x 8) = 6.
        assert frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])) == pytest.approx(6.0)

    def test_against_the_symmetric_square_root(self):
        x, y = vectors(40, 5, seed=0), vectors(30, 5, seed=1, scale=1.7, shift=0.4)
        s, r = np.cov(x.T), np.cov(y.T)
        values, basis = np.linalg.eigh(s)
        root = basis @ np.diag(np.sqrt(values)) @ basis.T
        cross = np.sqrt(np.linalg.eigvalsh(root @ r @ root)).sum()
        wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(r) - 2 * cross
        assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-8)

    def test_of_a_set_to_itself(self):
        x = vectors(40, 5, seed=0)
        assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)

    def test_as_many_pictures_as_numbers_are_too_few(self):
        assert least_pictures("fid", dim=5) == 6
        with pytest.raises(InputError, match="fid: got 5 pictures; at 5 numbers each it needs 6"):
            frechet_distance(vectors(5, 5, seed=0), vectors(9, 5, seed=1))


class TestKID:
    def test_against_loops_over_all_pairs(self):
        x, y = vectors(LEAST_PICTURES, 3, seed=0), vectors(LEAST_PICTURES, 3, seed=1, shift=0.5)

        def kernel(a, b):
            return (sum(i * j for i, j in zip(a, b, strict=True)) / 3 + 1) ** 3

        n = LEAST_PICTURES
        within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j)
        across = sum(kernel(a, b) for a in x for b in y)
        assert kernel_distance(x, y) == pytest.approx(within / (n * (n - 1)) - 2 * across / n**2, rel=1e-9)

    def test_it_is_unbiased_so_it_is_about_zero_for_one_distribution_and_reads_no_global_random_state(self):
        before = torch.get_rng_state()
        values = [kernel_distance(vectors(60, 2, seed=i), vectors(60, 2, seed=100 + i)) for i in range(40)]
        assert abs(np.mean(values)) < 2.5 * np.std(values) / math.sqrt(40)
        assert min(values) < 0
        assert torch.equal(torch.get_rng_state(), before)

    def test_too_few_or_uneven(self):
        few, many = vectors(LEAST_PICTURES - 1, 2, seed=0), vectors(LEAST_PICTURES, 2, seed=0)
        with pytest.raises(InputError, match="kid: got 49 pictures"):
            kernel_distance(few, few)
        with pytest.raises(InputError, match="give as many of both"):
            kernel_distance(many, vectors(LEAST_PICTURES + 1, 2, seed=1))


class TestCMMD:
    def test_by_hand(self):
        # All pictures alike on each side, at right angles: 1000 (1 + 1 - 2 exp(-2 / 200)).
        x, y = np.tile([3.0, 0.0], (LEAST_PICTURES, 1)), np.tile([0.0, 0.5], (LEAST_PICTURES, 1))
        assert cmmd(x, y) == pytest.approx(2000 * (1 - math.exp(-0.01)))

    def test_against_loops_over_all_pairs(self):
        x, y = vectors(LEAST_PICTURES, 4, seed=0), vectors(LEAST_PICTURES + 2, 4, seed=1, shift=1.0)

        def mean_kernel(a, b):
            total = 0.0
            for p in a:
                for q in b:
                    pairs = zip(p / math.sqrt(sum(p * p)), q / math.sqrt(sum(q * q)), strict=True)
                    total += math.exp(-sum((u - v) ** 2 for u, v in pairs) / 200)
            return total / (len(a) * len(b))

        wanted = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
        assert cmmd(x, y) == pytest.approx(wanted, rel=1e-7)

    def test_length_does_not_count(self):
        x, y = vectors(60, 4, seed=0), vectors(60, 4, seed=1)
        assert cmmd(5 * x, y) == pytest.approx(cmmd(x, y))
        assert cmmd(x, x) == pytest.approx(0.0, abs=1e-9)


class TestPerceptual:
    def test_by_hand(self):
        # (3, 4) and (1, 0) scaled to length one differ by (-0.4, 0.8): 0.16 + 0.64. The other place is the same.
        layer = np.array([[[3.0, 4.0], [1.0, 1.0]]])
        other = np.array([[[1.0, 0.0], [2.0, 2.0]]])
        assert perceptual_distance([layer], [other]) == pytest.approx([0.4])
        # A second layer in which they point opposite ways: |2 u|² = 4, at its only place.
        opposite = np.array([[[0.0, 1.0, 1.0]]])
        assert perceptual_distance([layer, opposite], [other, -opposite]) == pytest.approx([(0.4 + 4) / 2])

    def test_shapes_that_differ(self):
        with pytest.raises(ValueError, match="wanted the same"):
            perceptual_distance([np.ones((1, 2, 3))], [np.ones((1, 2, 4))])
        with pytest.raises(ValueError, match="wanted the same"):
            perceptual_distance([], [])


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, cmmd])
def test_what_is_no_number_and_vectors_of_two_networks(distance):
    x = vectors(60, 3, seed=0)
    broken = x.copy()
    broken[7, 1] = np.nan
    with pytest.raises(InputError, match="no numbers"):
        distance(broken, x)
    with pytest.raises(InputError, match="one extractor"):
        distance(x, vectors(60, 4, seed=0))
