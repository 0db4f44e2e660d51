"""SPEED: filters as the paper words them, retained and invariant rows exact, the target replaced."""

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.concepts import Concept
from aizheimer.data.rows import RowPairs, anchor_pairs, encode_rows, prompt_rows
from aizheimer.errors import RecipeError
from aizheimer.methods.speed import SPEED

SMALL = {"retain_neighbours": 3, "retain_others": 2, "retain_general": 1}
SANTA = Concept("santa claus", anchor="old man", keep=("cat",))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def deltas(edit):
    return {name.removeprefix("unet."): delta.double() for name, delta in edit.deltas.items()}


def test_retained_and_invariant_rows_are_exact(tiny_backbone):
    """To the rounding of the float32 change itself, at a weight of about 1; the solve is exact to 1e-12."""
    edit = SPEED(filter=False, **SMALL).unlearn(tiny_backbone, SANTA)
    null = encode_rows(tiny_backbone, [""])[0]
    kept = torch.cat([prompt_rows(tiny_backbone, ["cat", "mrs claus"], policy="last"), null[:1]])
    target = prompt_rows(tiny_backbone, ["santa claus"], policy="last")
    assert edit.provenance.extra["leakage"] < 1e-10
    for delta in deltas(edit).values():
        assert (kept @ delta.T).abs().max() < 1e-6 * (target @ delta.T).abs().max()
    assert edit.provenance.extra["residual"] < 0.3
    assert edit.provenance.extra["drift"] < 1e-8


def test_the_drift_without_rounding(tiny_backbone):
    edit = SPEED(filter=False, parts=("k", "v"), **SMALL).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["drift"] < 1e-12
    loose = SPEED(filter=False, tolerance=0.1, **SMALL).unlearn(tiny_backbone, SANTA)
    assert loose.provenance.extra["drift"] > 1e-6
    assert loose.provenance.extra["leakage"] > 1e-3


def test_the_filter_keeps_what_moves_more_than_average():
    weight, retained = random(4, 6), random(10, 6, seed=1)
    pairs = RowPairs(keys=random(2, 6, seed=2), sources=random(2, 6, seed=3))
    t, a = pairs.keys.T @ pairs.keys / 2, pairs.sources.T @ pairs.keys / 2
    shift = weight @ (a - t) @ torch.linalg.inv(torch.eye(6, dtype=torch.float64) + t)
    moved = (shift @ retained.T).norm(dim=0)
    wanted = retained[moved >= moved.mean()]
    found = SPEED(copies=0).retained_rows(weight, pairs, retained=retained, generator=torch.Generator())
    assert 0 < len(found) < 10
    torch.testing.assert_close(found, wanted)
    assert torch.equal(
        SPEED(copies=0, filter=False).retained_rows(weight, pairs, retained=retained, generator=None), retained
    )


@pytest.mark.parametrize(("direction", "seen"), [("paper", False), ("repository", True)])
def test_copies_move_along_the_direction_that_the_weights_see_least(direction, seen):
    weight, retained = random(4, 6), random(3, 6, seed=1)
    pairs = RowPairs(keys=random(1, 6, seed=2), sources=random(1, 6, seed=3))
    method = SPEED(copies=5, filter=False, direction=direction)
    rows = method.retained_rows(weight, pairs, retained=retained, generator=generator_for(0))
    noise = rows[3:] - retained.repeat(5, 1)
    values = torch.linalg.svdvals(noise)
    assert len(rows) == 18
    assert values[0] > 0.5
    assert values[1] < 1e-10
    seen_by_weights = (noise @ weight.T).norm() / noise.norm()
    assert (seen_by_weights > 1e-3) == seen
    if seen:
        assert seen_by_weights == pytest.approx(torch.linalg.svdvals(weight)[-1].item())


def test_only_values_by_default(tiny_backbone):
    edit = SPEED(**SMALL).unlearn(tiny_backbone, SANTA)
    assert all(".to_v." in name for name in edit.deltas)
    assert len(edit.deltas) == len(tiny_backbone.attention_modules())


def test_an_empty_anchor_is_end_of_text(tiny_backbone):
    """The target's value becomes that of the empty prompt's end, not of its beginning."""
    edit = SPEED(filter=False, ridge=1e-4, **SMALL).unlearn(tiny_backbone, Concept("santa claus"))
    null = encode_rows(tiny_backbone, [""])[0]
    pairs = anchor_pairs(tiny_backbone, ["santa claus"], concept=Concept("santa claus"), policy="last", empty="null")
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    for name, delta in deltas(edit).items():
        weight = parameters[name].detach().double()
        value = (weight + delta) @ pairs.keys[0]
        assert (value - weight @ null[1]).norm() < 0.05 * (weight @ null[1]).norm()


def test_more_than_fits_is_told(tiny_backbone):
    with pytest.raises(RecipeError, match="at most 31 independent rows fit"):
        SPEED(rows="all", filter=False, **SMALL).unlearn(tiny_backbone, SANTA)


def test_the_seed_decides(tiny_backbone):
    first, again, other = (SPEED(seed=seed, **SMALL).unlearn(tiny_backbone, SANTA) for seed in (0, 0, 1))
    name = next(iter(first.deltas))
    assert torch.equal(first.deltas[name], again.deltas[name])
    assert not torch.equal(first.deltas[name], other.deltas[name])
