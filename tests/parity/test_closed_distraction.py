"""Closed-form distraction against the least-squares problem that it states, with rows that an attack found."""

import pytest
import torch

from aizheimer.concepts.concept import Concept
from aizheimer.data.rows import anchor_pairs, encode_rows, row_scale
from aizheimer.engine.callbacks import Callbacks
from aizheimer.methods._closed_distraction import ClosedDistraction
from aizheimer.methods._revival import revived, undoing

SANTA = Concept("santa claus", anchor="man")
SMALL = {"prompts": "bare", "retain_neighbours": 2, "retain_others": 2, "retain_general": 1, "prior": 0.0}


def brute_force(weight, erased, kept, ridge):
    """Return the weights that minimise the three sums of squares, by one stacked least-squares problem."""
    left, right = [ridge**0.5 * torch.eye(weight.shape[1], dtype=torch.float64)], [ridge**0.5 * weight.T]
    for keys, sources in [*erased, (kept, kept)]:
        left.append(keys / len(keys) ** 0.5)
        right.append(sources @ weight.T / len(keys) ** 0.5)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_rows_that_bring_the_concept_back_are_solved_for_with_its_own(tiny_backbone, rounds):
    heard = {}
    method = ClosedDistraction(metric="identity", residual=None, rounds=rounds, **SMALL)
    edit = method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_data=heard.update))
    scale = row_scale(tiny_backbone)
    pairs = anchor_pairs(
        tiny_backbone, ["santa claus"], concept=SANTA, policy=("concept", "others"), empty="auto", scale=scale
    )
    kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]], scale=scale).flatten(0, 1)
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    original = {name: parameters[name].detach().double() for name in heard["parameters"]}
    erased = [(pairs.keys, pairs.sources)]

    def solved():
        return {name: brute_force(weight, erased, kept, 0.01) for name, weight in original.items()}

    edited, attacks = solved(), []
    for _ in range(rounds):
        found = pairs.keys @ undoing(edited, original, damping=0.01).T
        attacks.append(revived(edited, original, found=found, pairs=pairs))
        erased.append((found, pairs.sources))
        edited = solved()
    for name, weight in original.items():
        torch.testing.assert_close(edit.deltas[f"unet.{name}"].double(), edited[name] - weight, rtol=1e-4, atol=1e-6)
    assert edit.provenance.extra.get("revived", []) == pytest.approx(attacks)


def test_a_round_leaves_the_attack_less_to_find(tiny_backbone):
    method = ClosedDistraction(metric="identity", rounds=2, **SMALL)
    first, second = method.unlearn(tiny_backbone, SANTA).provenance.extra["revived"]
    assert first > second
