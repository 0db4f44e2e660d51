"""Projections against brute force."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aizheimer.attacks._projections import onto_ball, onto_simplex, steepest, straight_through
from aizheimer.data.free_words import nearest

numbers = st.floats(-3, 3, allow_nan=False, width=32)
rows = st.lists(numbers, min_size=1, max_size=5)


def brute_force(values):
    """Try every set of entries that may stay: on each the nearest point of its plane; the nearest allowed one wins."""
    found = []
    for size in range(1, len(values) + 1):
        for kept in itertools.combinations(range(len(values)), size):
            point = torch.zeros_like(values)
            inside = values[list(kept)]
            point[list(kept)] = inside - (inside.sum() - 1) / size
            if (point >= 0).all():
                found.append(point)
    return min(found, key=lambda point: float((point - values).square().sum()))


class TestSimplex:
    @given(rows)
    def test_it_is_the_nearest_of_all_probabilities(self, row):
        values = torch.tensor(row, dtype=torch.float64)
        torch.testing.assert_close(onto_simplex(values), brute_force(values), atol=1e-9, rtol=0)

    def test_rows_are_projected_each_for_itself(self):
        values = torch.tensor([[[0.7, 0.5, -1.0], [0.2, 0.3, 0.5]], [[9.0, 0.0, 0.0], [-1.0, -1.0, -1.0]]])
        third = torch.full((3,), 1 / 3)
        expected = torch.stack([torch.tensor([0.6, 0.4, 0]), values[0, 1], torch.tensor([1.0, 0, 0]), third])
        torch.testing.assert_close(onto_simplex(values), expected.reshape(2, 2, 3))

    def test_a_whole_vocabulary(self):
        values = torch.randn(2, 49408, generator=torch.Generator().manual_seed(0)) / 100 + 1 / 49408
        found = onto_simplex(values)
        assert (found >= 0).all()
        torch.testing.assert_close(found.sum(-1), torch.ones(2), atol=1e-4, rtol=0)


class TestBall:
    def test_by_hand(self):
        values = torch.tensor([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0]])
        assert onto_ball(values, norm="l2", radius=1.0).tolist() == [
            pytest.approx([0.6, -0.8]),
            pytest.approx([0.3, 0.4]),
            [0, 0],
        ]
        assert onto_ball(values, norm="linf", radius=0.35).tolist() == [
            pytest.approx([0.35, -0.35]),
            pytest.approx([0.3, 0.35]),
            [0, 0],
        ]
        assert onto_ball(values, norm="free", radius=0.1) is values

    def test_steps_have_unit_length_in_their_norm(self):
        gradient = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
        assert steepest(gradient, norm="l2").tolist() == [pytest.approx([0.6, -0.8]), [0, 0]]
        assert steepest(gradient, norm="linf").tolist() == [[1, -1], [0, 0]]
        assert steepest(gradient, norm="free").tolist() == [[1, -1], [0, 0]]


def test_the_nearest_word_is_the_one_of_the_largest_cosine():
    generator = torch.Generator().manual_seed(0)
    vectors, table = torch.randn(4, 3, generator=generator), torch.randn(7, 3, generator=generator)
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], table[None], dim=-1)
    assert nearest(vectors, table).tolist() == cosine.argmax(1).tolist()
    assert nearest(100 * vectors, table / 9).tolist() == cosine.argmax(1).tolist()


class TestStraightThrough:
    def test_it_is_the_gradient_for_the_one_hot_that_was_read(self):
        generator = torch.Generator().manual_seed(0)
        table, weight = torch.randn(6, 3, generator=generator) / 4, torch.randn(2, 3, generator=generator) / 4
        one_hot = torch.nn.functional.one_hot(torch.tensor([4, 1]), 6).float().requires_grad_(True)
        ((one_hot @ table).square() * weight).sum().backward()
        vectors = table[[4, 1]].requires_grad_(True)
        (vectors.square() * weight).sum().backward()
        torch.testing.assert_close(straight_through(vectors.grad, table), one_hot.grad)

    def test_entries_are_cut_at_one(self):
        assert straight_through(torch.tensor([[2.0]]), torch.tensor([[3.0], [0.25], [-1.0]])).tolist() == [[1, 0.5, -1]]
