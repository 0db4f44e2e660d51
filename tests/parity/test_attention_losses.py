"""The three attention losses against their equations, worked by hand.

Two layers, numbers small enough to follow with a pencil:

- "a": 1 head, 2 queries (pixels), 1 target token, A = (0.3, 0.4)
- "b": 2 heads, 1 query, 1 target token, A = (0.6) and (0.8)
"""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from aizheimer.modules.maps import AttentionMap
from aizheimer.objectives import distraction, random_stimulus, resteering

TOKENS = 4


def one(probabilities: list) -> AttentionMap:
    tensor = torch.tensor(probabilities, dtype=torch.float64)
    return AttentionMap(tensor, torch.ones(tensor.shape[0], tensor.shape[-1], dtype=torch.bool))


@pytest.fixture
def maps():
    return {"a": one([[[[0.3], [0.4]]]]), "b": one([[[[0.6]], [[0.8]]]])}


@pytest.fixture
def batch():
    """Row 0 as above; row 1 has two target tokens: in "a" (0.1, 0.2) and (0.2, 0.4), in "b" (0.3, 0.4) and (0, 0)."""
    valid = torch.tensor([[True, False], [True, True]])
    a = torch.tensor([[[[0.3, 0.0], [0.4, 0.0]]], [[[0.1, 0.2], [0.2, 0.4]]]], dtype=torch.float64)
    b = torch.tensor([[[[0.6, 0.0]], [[0.8, 0.0]]], [[[0.3, 0.4]], [[0.0, 0.0]]]], dtype=torch.float64)
    return {"a": AttentionMap(a, valid), "b": AttentionMap(b, valid)}


def values(term) -> dict[str, float]:
    return {name: value.item() for name, value in term.parts.items()}


# Re-steering, eq. (4)


@pytest.mark.parametrize("variant", ["paper", "notebook"])
def test_resteering_is_one_norm_over_everything(maps, variant):
    term = resteering(maps, variant=variant)
    assert term.total.item() == pytest.approx(sqrt(0.09 + 0.16 + 0.36 + 0.64))
    assert values(term) == pytest.approx({"a": 0.5, "b": 1.0})


def test_resteering_paper_averages_the_samples(batch):
    row0, row1 = sqrt(0.25 + 1.0), sqrt(0.25 + 0.25)
    term = resteering(batch, variant="paper")
    assert term.total.item() == pytest.approx((row0 + row1) / 2)
    assert values(term) == pytest.approx({"a": 0.5, "b": 0.75})


def test_resteering_notebook_pools_the_batch(batch):
    term = resteering(batch, variant="notebook")
    assert term.total.item() == pytest.approx(sqrt(0.25 + 1.0 + 0.25 + 0.25))
    assert values(term) == pytest.approx({"a": sqrt(0.5), "b": sqrt(1.25)})


def test_resteering_mean_averages_squares_rows_and_layers(batch):
    a = (0.25 / 2 + 0.25 / 4) / 2
    b = (1.0 / 2 + 0.25 / 4) / 2
    term = resteering(batch, variant="mean")
    assert values(term) == pytest.approx({"a": a, "b": b})
    assert term.total.item() == pytest.approx((a + b) / 2)


# Distraction, eq. (5)


def test_distraction_paper_sums_heads_with_one_over_the_flattened_length(maps):
    # "a": one head of dim 2, constant 1/2. "b": two heads of dim 1, constant 1.
    a = sqrt((0.3 - 0.5) ** 2 + (0.4 - 0.5) ** 2)
    b = abs(0.6 - 1) + abs(0.8 - 1)
    term = distraction(maps, variant="paper", tokens=TOKENS)
    assert values(term) == pytest.approx({"a": a, "b": b})
    assert term.total.item() == pytest.approx(a + b)


def test_distraction_paper_takes_each_rows_own_length(batch):
    # Row 1: in "a" dim 4, constant 1/4; in "b" dim 2, constant 1/2. The padding of row 0 stays out.
    row0 = sqrt(0.04 + 0.01) + 0.4 + 0.2
    row1 = sqrt(0.15**2 + 0.05**2 + 0.05**2 + 0.15**2) + sqrt(0.2**2 + 0.1**2) + sqrt(0.25 + 0.25)
    assert distraction(batch, variant="paper", tokens=TOKENS).total.item() == pytest.approx((row0 + row1) / 2)


def test_distraction_notebook_sums_layers_with_one_over_the_pixels(batch):
    # "a" has two pixels: constant 1/2. "b" has one: constant 1. One norm a layer over batch and heads.
    a = sqrt(0.2**2 + 0.1**2 + 0.4**2 + 0.3**2 + 0.3**2 + 0.1**2)
    b = sqrt(0.4**2 + 0.2**2 + 0.7**2 + 0.6**2 + 1 + 1)
    term = distraction(batch, variant="notebook", tokens=TOKENS)
    assert values(term) == pytest.approx({"a": a, "b": b})
    assert term.total.item() == pytest.approx(a + b)


def test_distraction_mean_aims_at_even_attention(batch):
    even = 1 / TOKENS
    a = ((0.05**2 + 0.15**2) / 2 + (0.15**2 + 0.05**2 + 0.05**2 + 0.15**2) / 4) / 2
    b = ((0.35**2 + 0.55**2) / 2 + (0.05**2 + 0.15**2 + 2 * even**2) / 4) / 2
    term = distraction(batch, variant="mean", tokens=TOKENS)
    assert values(term) == pytest.approx({"a": a, "b": b})
    assert term.total.item() == pytest.approx((a + b) / 2)


# Random stimulus, eq. (6)


def noise(seed: int) -> tuple[list[float], list[float]]:
    """The uniform numbers of the two layers of ``maps``, in the order in which the term draws them."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand((2,), generator=generator).tolist() for _ in range(2))


def stimulus(maps, variant: str, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return random_stimulus(maps, variant=variant, tokens=TOKENS, generator=generator)


def test_random_stimulus_paper_sums_heads_with_noise_of_even_attention(maps):
    (r0, r1), (s0, s1) = noise(3)
    a = sqrt((0.3 - r0 / 4) ** 2 + (0.4 - r1 / 4) ** 2)
    b = abs(0.6 - s0 / 4) + abs(0.8 - s1 / 4)
    term = stimulus(maps, "paper", 3)
    assert values(term) == pytest.approx({"a": a, "b": b}, rel=1e-6)
    assert term.total.item() == pytest.approx(a + b, rel=1e-6)


def test_random_stimulus_notebook_scales_by_the_pixels_and_pools_heads(maps):
    (r0, r1), (s0, s1) = noise(4)
    a = sqrt((0.3 - r0 / 2) ** 2 + (0.4 - r1 / 2) ** 2)
    b = sqrt((0.6 - s0) ** 2 + (0.8 - s1) ** 2)
    term = stimulus(maps, "notebook", 4)
    assert values(term) == pytest.approx({"a": a, "b": b}, rel=1e-6)
    assert term.total.item() == pytest.approx(a + b, rel=1e-6)


def test_random_stimulus_mean_averages_squares(maps):
    (r0, r1), (s0, s1) = noise(5)
    a = ((0.3 - r0 / 4) ** 2 + (0.4 - r1 / 4) ** 2) / 2
    b = ((0.6 - s0 / 4) ** 2 + (0.8 - s1 / 4) ** 2) / 2
    term = stimulus(maps, "mean", 5)
    assert values(term) == pytest.approx({"a": a, "b": b}, rel=1e-6)
    assert term.total.item() == pytest.approx((a + b) / 2, rel=1e-6)


def test_random_stimulus_is_in_expectation_half_of_even_attention(maps):
    """mean variant: E (A - R)^2 = (A - 1/(2T))^2 + 1/(12 T^2)."""
    generator = torch.Generator().manual_seed(6)
    draws = [
        random_stimulus(maps, variant="mean", tokens=TOKENS, generator=generator).total.item() for _ in range(4000)
    ]
    flat = [0.3, 0.4, 0.6, 0.8]
    expected = sum((p - 1 / (2 * TOKENS)) ** 2 for p in flat) / 4 + 1 / (12 * TOKENS**2)
    assert sum(draws) / len(draws) == pytest.approx(expected, rel=0.02)
