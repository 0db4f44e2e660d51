"""Ridge solves against least squares on the same objective."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aizheimer.errors import RecipeError, SelectorError
from aizheimer.modules.ridge import RidgeSums, projection_weights, solve_ridge, text_map

OUT, DIM = 3, 5


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def least_squares(weight, groups, ridge):
    """Minimise sum a |W k - v|^2 + ridge |W - W0|^2 as one stacked least-squares problem."""
    left = [ridge**0.5 * torch.eye(DIM, dtype=torch.float64)]
    right = [ridge**0.5 * weight.T]
    for keys, values, factor in groups:
        left.append(factor**0.5 * keys)
        right.append(factor**0.5 * values)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


@given(seed=st.integers(0, 1000), ridge=st.floats(1e-3, 1e3), factor=st.floats(0.01, 100))
def test_it_is_the_least_squares_solution(seed, ridge, factor):
    weight, keys, values, kept = (
        random(*shape, seed=seed + i) for i, shape in enumerate([(OUT, DIM), (4, DIM), (4, OUT), (2, DIM)])
    )
    sums = RidgeSums.of(keys, values, weight=factor) + RidgeSums.of(kept, kept @ weight.T)
    found = solve_ridge(weight, sums, ridge=ridge)
    wanted = least_squares(weight, [(keys, values, factor), (kept, kept @ weight.T, 1.0)], ridge)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_the_gradient_of_the_objective_is_zero():
    weight, keys, values = random(OUT, DIM, seed=1), random(3, DIM, seed=2), random(3, OUT, seed=3)
    new = solve_ridge(weight, RidgeSums.of(keys, values, weight=2.0), ridge=0.7).requires_grad_(True)
    loss = 2.0 * (new @ keys.T - values.T).square().sum() + 0.7 * (new - weight).square().sum()
    loss.backward()
    assert new.grad.abs().max() < 1e-10


def test_values_that_are_already_answered_change_nothing():
    weight, keys = random(OUT, DIM), random(7, DIM, seed=1)
    sums = RidgeSums.keep(keys)
    assert torch.equal(text_map(sums, ridge=0.3), torch.zeros(DIM, DIM, dtype=torch.float64))
    found = solve_ridge(weight, RidgeSums.of(keys, keys @ weight.T), ridge=0.0)
    torch.testing.assert_close(found, weight, rtol=0, atol=1e-12)


def test_one_map_of_the_text_serves_every_layer():
    keys, sources = random(4, DIM, seed=1), random(4, DIM, seed=2)
    sums = RidgeSums.of(keys, sources) + RidgeSums.keep(random(3, DIM, seed=3), weight=0.5)
    change = text_map(sums, ridge=0.2)
    for seed, out in ((4, 2), (5, 6)):
        weight = random(out, DIM, seed=seed)
        layer = sums.through(weight)
        assert layer.gram is sums.gram
        torch.testing.assert_close(weight + weight @ change, solve_ridge(weight, layer, ridge=0.2))


def test_the_bias_is_taken_off_the_values():
    """A biased layer asked to answer as it does must not move; with the bias left in, it would."""
    layer = nn.Linear(DIM, OUT).double()
    keys, weight = random(6, DIM, seed=1), layer.weight.detach()
    values = layer(keys).detach()
    kept = solve_ridge(weight, RidgeSums.of(keys, values, bias=layer.bias.detach()), ridge=0.1)
    moved = solve_ridge(weight, RidgeSums.of(keys, values), ridge=0.1)
    torch.testing.assert_close(kept, weight, rtol=0, atol=1e-12)
    assert (moved - weight).abs().max() > 1e-3
    # And replaced: what the layer answers, bias included, is what the least squares asks for.
    wanted = random(6, OUT, seed=2)
    new = solve_ridge(weight, RidgeSums.of(keys, wanted, bias=layer.bias.detach()), ridge=1e-9)
    torch.testing.assert_close(new, least_squares(weight, [(keys, wanted - layer.bias.detach(), 1.0)], 1e-9))


def test_counts_make_weights_transfer():
    """Ten copies of the data have the same mean moments, so the same weight does the same."""
    keys, values = random(3, DIM, seed=1), random(3, OUT, seed=2)
    once, tenfold = RidgeSums.of(keys, values), RidgeSums.of(keys.repeat(10, 1), values.repeat(10, 1))
    assert (once.count, tenfold.count) == (3, 30)
    torch.testing.assert_close(once.mean().gram, tenfold.mean().gram)
    torch.testing.assert_close(once.mean().numerator, tenfold.mean().numerator)
    assert (once + tenfold).count == 33
    assert once.times(5).count == 3


def test_a_singular_problem_is_told():
    weight, keys = random(OUT, DIM), random(2, DIM, seed=1)
    with pytest.raises(RecipeError, match=r"ridge: got 0, and the rows span only 2 of 5 directions.*raise the ridge"):
        solve_ridge(weight, RidgeSums.of(keys, keys @ weight.T), ridge=0.0)
    with pytest.raises(RecipeError, match="ridge: got -1"):
        text_map(RidgeSums.keep(keys), ridge=-1)
    with pytest.raises(RecipeError, match="ridge: got nan"):
        text_map(RidgeSums.keep(keys), ridge=float("nan"))
    with pytest.raises(SelectorError, match="2 keys and 3 values"):
        RidgeSums.of(keys, random(3, OUT))


def test_projections_by_name(tiny_backbone):
    modules = tiny_backbone.attention_modules()
    layers = list(modules)[:2]
    found = projection_weights(tiny_backbone.text_projections(layers, ("v", "k")))
    assert list(found) == [f"{layer}.to_{part}.weight" for layer in layers for part in "kv"]
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    for name, weight in found.items():
        assert weight.dtype == torch.float64
        assert torch.equal(weight.float(), parameters[name])
    found[f"{layers[0]}.to_k.weight"].zero_()
    assert parameters[f"{layers[0]}.to_k.weight"].abs().max() > 0
    with pytest.raises(SelectorError, match="no layer is called 'nowhere'"):
        tiny_backbone.text_projections(["nowhere"], ("k",))
    with pytest.raises(SelectorError, match="wanted k, v or both"):
        tiny_backbone.text_projections(layers, ("q",))
    modules[layers[0]].to_k = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(SelectorError, match="is a Sequential"):
        projection_weights(tiny_backbone.text_projections(layers, ("k",)))
