"""RECE: the attack and the solves, each against least squares."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.data.rows import RowPairs, anchor_pairs, encode_rows
from aizheimer.engine.callbacks import Callbacks
from aizheimer.methods._revival import revivable, revived, undoing
from aizheimer.methods.rece import RECE
from tests.optimum import check_change

SMALL = {"retain_neighbours": 2, "retain_others": 1, "retain_general": 1}
SANTA = Concept("santa claus", anchor="old man", keep=("cat",))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_attack_minimises_its_objective():
    """Sum over layers of |W c' - W0 c|^2 + mu |c'|^2, as one stacked least-squares problem."""
    original = {"k": random(4, 6), "v": random(7, 6, seed=1)}
    edited = {"k": random(4, 6, seed=2), "v": random(7, 6, seed=3)}
    c = random(6, seed=4)
    mean = sum(w.square().sum() for w in edited.values()) / 6
    left = torch.cat([edited["k"], edited["v"], (0.05 * mean).sqrt() * torch.eye(6, dtype=torch.float64)])
    right = torch.cat([original["k"] @ c, original["v"] @ c, torch.zeros(6, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(left, right[:, None]).solution[:, 0]
    torch.testing.assert_close(undoing(edited, original, damping=0.05) @ c, wanted, rtol=1e-6, atol=1e-9)


def test_an_unedited_model_needs_no_other_words():
    original = {"k": random(9, 6)}
    torch.testing.assert_close(undoing(original, original, damping=1e-12), torch.eye(6, dtype=torch.float64))
    pairs = RowPairs(keys=random(3, 6, seed=1), sources=random(3, 6, seed=2))
    assert revived(original, original, found=pairs.keys, pairs=pairs) == 1
    assert revived(original, original, found=pairs.sources, pairs=pairs) == pytest.approx(0)
    half = (pairs.keys + pairs.sources) / 2
    assert revived(original, original, found=half, pairs=pairs) == pytest.approx(0.5)


def least_squares(weight, groups, ridge):
    left = [ridge**0.5 * torch.eye(weight.shape[1], dtype=torch.float64)]
    right = [ridge**0.5 * weight.T]
    for keys, sources, factor in groups:
        left.append(factor**0.5 * keys)
        right.append(factor**0.5 * sources @ weight.T)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


@pytest.mark.parametrize("resolve", ["current", "original"])
def test_one_round_step_by_step(tiny_backbone, resolve):
    heard = {}
    method = RECE(epochs=1, resolve=resolve, **SMALL)
    edit = method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_data=heard.update))
    first = anchor_pairs(tiny_backbone, ["santa claus"], concept=SANTA, policy="last..end")
    rows = anchor_pairs(tiny_backbone, ["santa claus"], concept=SANTA, policy="all")
    kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]]).flatten(0, 1)
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    original = {name: parameters[name].detach().double() for name in heard["parameters"]}
    groups = [(first.keys, first.sources, 1.0), (kept, kept, 0.1)]
    edited = {name: least_squares(weight, groups, 0.5) for name, weight in original.items()}
    found = rows.keys @ undoing(edited, original, damping=0.01).T
    for name, weight in original.items():
        if resolve == "current":
            again = [(found, rows.sources, 1.0), (kept, kept, 0.1)]
            wanted = least_squares(edited[name], again, 0.1)
        else:
            wanted = least_squares(weight, [*groups, (found, rows.sources, 1.0)], 0.1)
        check_change(edit.deltas[f"unet.{name}"], wanted - weight)


def test_rounds_leave_less_to_bring_back(tiny_backbone):
    attacks = RECE(epochs=3, **SMALL).unlearn(tiny_backbone, SANTA).provenance.extra["revived"]
    assert len(attacks) == 3
    assert attacks[2] < attacks[0]


def test_no_round_is_the_first_solve_alone(tiny_backbone):
    edit = RECE(epochs=0, **SMALL).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["revived"] == []
    assert not edit.is_noop
    assert RECE(epochs=0, erase_scale=0, **SMALL).unlearn(tiny_backbone, SANTA).is_noop


def some_edit():
    original = {"k": random(5, 6), "v": random(5, 6, seed=1)}
    edited = {name: weight + 0.5 * random(5, 6, seed=2 + i) for i, (name, weight) in enumerate(original.items())}
    return original, edited, RowPairs(keys=random(4, 6, seed=4), sources=random(4, 6, seed=5))


@pytest.mark.parametrize("radius", [0.05, 0.2, 0.5])
def test_the_worst_shifts_within_balls_are_found_exactly(radius):
    """No shift that a search finds brings back more, and a long search comes as near as one likes."""
    original, edited, pairs = some_edit()
    shift, bound = torch.zeros_like(pairs.keys), radius * pairs.keys.norm(dim=1, keepdim=True)
    for _ in range(4000):
        shift.requires_grad_(True)
        gaps = [(pairs.keys + shift) @ edited[name].T - pairs.keys @ weight.T for name, weight in original.items()]
        (slope,) = torch.autograd.grad(torch.stack(gaps).square().sum(), shift)
        moved = shift.detach() - 0.01 * slope
        shift = moved * (bound / moved.norm(dim=1, keepdim=True)).clamp(max=1)
    searched = revived(edited, original, found=pairs.keys + shift, pairs=pairs)
    exact = revivable(edited, original, pairs=pairs, radius=radius)
    assert searched <= exact + 1e-9
    assert exact == pytest.approx(searched, abs=1e-4)


def test_what_a_ball_brings_back_lies_between_nothing_and_the_closed_form_attack():
    original, edited, pairs = some_edit()
    at = [revivable(edited, original, pairs=pairs, radius=radius) for radius in (0.0, 0.1, 0.3, 1.0, 1e3)]
    assert at == sorted(at)
    assert at[0] == pytest.approx(revived(edited, original, found=pairs.keys, pairs=pairs))
    anywhere = pairs.keys @ undoing(edited, original, damping=1e-14).T
    assert at[-1] == pytest.approx(revived(edited, original, found=anywhere, pairs=pairs), abs=1e-6)
    assert revivable(original, original, pairs=pairs, radius=0.1) == pytest.approx(1)
