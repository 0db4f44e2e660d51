"""Attention mass and heat-maps."""

from __future__ import annotations

import pytest
import torch

from aizheimer.errors import InputError
from aizheimer.modules.maps import AttentionMap, heatmap, mass


def a_map(probabilities: torch.Tensor, valid: list[list[bool]] | None = None) -> AttentionMap:
    batch, _, _, n = probabilities.shape
    return AttentionMap(probabilities, torch.ones(batch, n, dtype=torch.bool) if valid is None else torch.tensor(valid))


def test_mass_sums_the_tokens_and_averages_the_rest():
    probabilities = torch.tensor([[[[0.1, 0.2], [0.3, 0.0]]], [[[0.5, 0.0], [0.1, 0.0]]]])  # batch 2, 1 head, 2 queries

    result = mass({"a": a_map(probabilities, [[True, True], [True, False]]), "b": a_map(probabilities / 2)})

    assert result["a"].item() == pytest.approx((0.3 + 0.3 + 0.5 + 0.1) / 4)
    assert result["b"].item() == pytest.approx(result["a"].item() / 2)


def test_rows_without_the_target_do_not_dilute_the_mass():
    probabilities = torch.zeros(2, 1, 3, 1)
    probabilities[0] = 0.4

    assert mass({"a": a_map(probabilities, [[True], [False]])})["a"].item() == pytest.approx(0.4)


def test_heatmap_at_the_layers_own_size_is_the_attention_itself():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(2, 3, 6, 2, generator=generator) / 2

    picture = heatmap(a_map(probabilities), 2, 3)

    assert picture.shape == (2, 2, 3)
    assert picture[1, 1, 2].item() == pytest.approx(probabilities[1, :, 5].sum(dim=-1).mean().item())
    assert picture[0, 0, 1].item() == pytest.approx(probabilities[0, :, 1].sum(dim=-1).mean().item())


def test_heatmap_grows_to_the_image_and_keeps_where_things_are():
    probabilities = torch.zeros(1, 1, 8, 1)  # 2 rows x 4 columns
    probabilities[0, 0, 7] = 1.0

    picture = heatmap(a_map(probabilities), 32, 64)

    assert picture.shape == (1, 32, 64)
    assert picture[0, -1, -1].item() == pytest.approx(1.0)
    assert picture[0, :8].max().item() == 0.0
    assert picture[0, :, :40].max().item() == 0.0


@pytest.mark.parametrize(("height", "width", "queries"), [(9, 5, 15), (9, 5, 6), (1, 7, 4)])
def test_heatmap_knows_that_odd_sizes_round_up(height: int, width: int, queries: int):
    assert heatmap(a_map(torch.ones(1, 1, queries, 1)), height, width).shape == (1, height, width)


def test_heatmap_refuses_a_size_that_does_not_fit():
    with pytest.raises(InputError, match=r"7 queries .* 8 x 8"):
        heatmap(a_map(torch.ones(1, 1, 7, 1)), 8, 8)
