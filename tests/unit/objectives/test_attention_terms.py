"""What holds for all three attention losses; their values by hand are in tests/parity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aizheimer.errors import RecipeError, SelectorError
from aizheimer.modules.maps import AttentionMap
from aizheimer.objectives import ATTENTION_TERMS, VARIANTS, distraction, resteering
from aizheimer.objectives.terms import check_inputs

TERMS = sorted(ATTENTION_TERMS)


def random_maps(seed: int, *, batch: int = 3, n: int = 2, layers: dict[str, tuple[int, int]] | None = None, **options):
    generator = torch.Generator().manual_seed(seed)
    valid = torch.arange(n) < torch.randint(1, n + 1, (batch, 1), generator=generator)
    maps = {}
    for name, (heads, queries) in (layers or {"down": (2, 16), "mid": (3, 4)}).items():
        probabilities = torch.rand(batch, heads, queries, n, generator=generator).to(**options) / (2 * n)
        probabilities = (probabilities * valid[:, None, None, :]).requires_grad_()
        maps[name] = AttentionMap(probabilities, valid)
    return maps


def call(name: str, maps, variant: str, seed: int = 0, tokens: int = 77):
    generator = torch.Generator().manual_seed(seed)
    return ATTENTION_TERMS[name](maps, variant=variant, tokens=tokens, generator=generator)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_is_a_differentiable_scalar_with_a_detached_part_for_each_layer(name: str, variant: str):
    maps = random_maps(0)
    term = call(name, maps, variant)
    gradients = torch.autograd.grad(term.total, [attention.probabilities for attention in maps.values()])

    assert term.total.shape == ()
    assert list(term.parts) == ["down", "mid"]
    assert not any(part.requires_grad for part in term.parts.values())
    for gradient, attention in zip(gradients, maps.values(), strict=True):
        assert gradient.isfinite().all()
        assert gradient.movedim(-1, 1)[attention.valid].any()
        assert not gradient.movedim(-1, 1)[~attention.valid].any(), "padding must not be trained"


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_equals_finite_differences(name: str, variant: str):
    maps = random_maps(1, batch=2, layers={"down": (2, 4), "mid": (1, 1)}, dtype=torch.float64)
    valid = maps["down"].valid

    def loss(*probabilities: torch.Tensor) -> torch.Tensor:
        rebuilt = {name: AttentionMap(p, valid) for name, p in zip(maps, probabilities, strict=True)}
        return call(name, rebuilt, variant).total

    inputs = tuple(attention.probabilities.detach().requires_grad_() for attention in maps.values())
    # Padded zeros are outside the term, so their numerical and analytical gradients are zero alike.
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("name", ["distraction", "random_stimulus"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_make_up_the_total(name: str, variant: str):
    term = call(name, random_maps(2), variant)
    parts = torch.stack(list(term.parts.values()))
    assert term.total.item() == pytest.approx((parts.mean() if variant == "mean" else parts.sum()).item())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(["resteering", "distraction"]), st.sampled_from(["paper", "mean"]))
def test_the_loss_of_a_batch_is_the_mean_of_its_rows(seed: int, name: str, variant: str):
    maps = random_maps(seed, batch=3, n=3)
    rows = [
        {layer: AttentionMap(a.probabilities[i : i + 1], a.valid[i : i + 1]) for layer, a in maps.items()}
        for i in range(3)
    ]
    alone = sum(call(name, row, variant).total.item() for row in rows) / 3
    assert call(name, maps, variant).total.item() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("name", ["resteering", "distraction"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_without_the_target_change_nothing(name: str, variant: str):
    maps = random_maps(3)
    longer = {
        layer: AttentionMap(
            torch.cat([a.probabilities, 0 * a.probabilities[:2]]),
            torch.cat([a.valid, torch.zeros_like(a.valid[:2])]),
        )
        for layer, a in maps.items()
    }
    inputs = [attention.probabilities for attention in maps.values()]
    expected, found = call(name, maps, variant).total, call(name, longer, variant).total

    assert found.item() == pytest.approx(expected.item())
    # A NaN that is masked out of the value can still come back in the gradient.
    gradients = zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True)
    for mine, other in gradients:
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("name", ["resteering", "distraction"])
def test_mean_does_not_depend_on_the_size_of_the_model(name: str):
    small = random_maps(4, layers={"down": (1, 4)})["down"]
    large = AttentionMap(small.probabilities.repeat(1, 6, 9, 1), small.valid)
    expected = call(name, {"down": small}, "mean").total.item()
    assert call(name, {"down": large, "mid": small}, "mean").total.item() == pytest.approx(expected)
    assert call(name, {"down": large, "mid": small}, "paper").total.item() != pytest.approx(expected)


def test_random_stimulus_repeats_with_the_seed_and_differs_without():
    maps = random_maps(5)
    assert torch.equal(*(call("random_stimulus", maps, "paper", seed=1).total for _ in range(2)))
    first, second = (call("random_stimulus", maps, "paper", seed=seed).total for seed in (1, 2))
    assert not torch.equal(first, second)


def test_no_term_touches_the_global_generator():
    before = torch.random.get_rng_state()
    for name in TERMS:
        call(name, random_maps(6), "paper")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_literal_uniform_noise_would_strengthen_the_concept_but_ours_does_not(variant: str):
    """Attention at the even level must not be pushed up by the stimulus, on average."""
    tokens = 77
    probabilities = torch.full((1, 1, 4096, 1), 1 / tokens, requires_grad=True)
    maps = {"a": AttentionMap(probabilities, torch.ones(1, 1, dtype=torch.bool))}
    (gradient,) = torch.autograd.grad(call("random_stimulus", maps, variant).total, probabilities)
    assert gradient.mean() > 0, "descent must lower the attention"


@pytest.mark.parametrize("name", TERMS)
def test_zero_attention_has_a_finite_gradient(name: str):
    maps = {"a": AttentionMap(torch.zeros(1, 2, 4, 1, requires_grad=True), torch.ones(1, 1, dtype=torch.bool))}
    for variant in VARIANTS:
        (gradient,) = torch.autograd.grad(call(name, maps, variant).total, maps["a"].probabilities)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", TERMS)
def test_half_precision_maps_are_summed_in_single_precision(name: str, dtype: torch.dtype):
    single = random_maps(7, layers={"down": (4, 4096)})
    half = {layer: AttentionMap(a.probabilities.to(dtype), a.valid) for layer, a in single.items()}
    for variant in VARIANTS:
        term = call(name, half, variant)
        assert term.total.dtype == torch.float32
        assert term.total.item() == pytest.approx(call(name, single, variant).total.item(), rel=1e-2)


@pytest.mark.parametrize("name", TERMS)
def test_bad_input_is_refused(name: str):
    maps = random_maps(8)
    with pytest.raises(RecipeError, match=r"variant: 'papper' is unknown.*Did you mean 'paper'"):
        check_inputs(maps, variant="papper")
    with pytest.raises(SelectorError, match="no attention maps"):
        call(name, {}, "paper")
    if name != "resteering":
        with pytest.raises(SelectorError, match="tokens is 0"):
            call(name, maps, "paper", tokens=0)


def test_terms_need_no_more_than_their_equation():
    maps = random_maps(9)
    assert resteering(maps, variant="paper").total > 0
    assert distraction(maps, variant="mean", tokens=77).total > 0
