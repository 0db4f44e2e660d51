"""OCE: an orthogonal matrix that is the best for its objective; the target is reflected, the rest stays."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.data.rows import RowPairs
from aizheimer.methods.oce import OCE

SMALL = {"retain_neighbours": 3, "retain_others": 2, "retain_general": 1, "prior_prompts": 8}
SANTA = Concept("santa claus", anchor="old man", keep=("cat",))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_objective_by_hand():
    """One target and one anchor value, one retained row, weights of unit rows."""
    weight = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).double()
    pairs = RowPairs(keys=torch.tensor([[2.0, 0, 5]]).double(), sources=torch.tensor([[3.0, 3, 0]]).double())
    retained = torch.tensor([[0.0, 2, 1]]).double()
    prior = torch.diag(torch.tensor([1.0, 3, 7])).double()
    method = OCE(erase_scale=100, preserve_scale=2, general_scale=10, ridge=1)
    # G = e1 e1', G* = [[.5, .5], [.5, .5]], G (I - G*) = [[.5, -.5], [0, 0]]
    erase = torch.tensor([[50.0, -50], [0, 0]]).double()
    kept = torch.diag(torch.tensor([10.0 + 1, 2 * 4 + 30 + 1])).double()
    found = method.objective(weight, pairs, retained=retained, prior=prior)
    torch.testing.assert_close(found, kept - erase)


def rotations(backbone, edit):
    """Recover R from W' = R W, where W has full row rank."""
    parameters = dict(backbone.denoiser.named_parameters())
    for name, delta in edit.deltas.items():
        weight = parameters[name.removeprefix("unet.")].detach().double()
        yield (weight + delta.double()) @ torch.linalg.pinv(weight)


@pytest.mark.parametrize("determinant", ["smallest", "free"])
def test_values_keep_their_lengths_and_angles(tiny_backbone, determinant):
    edit = OCE(determinant=determinant, **SMALL).unlearn(tiny_backbone, SANTA)
    assert all(".to_v." in name for name in edit.deltas)
    for rotation in rotations(tiny_backbone, edit):
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(rotation)).double(), rtol=0, atol=1e-3)
        assert determinant == "free" or torch.linalg.det(rotation) > 0


def test_no_single_unit_is_turned_around(tiny_backbone):
    """Negating a column of R inverts one unit for every text; the smallest singular vector is spread over many."""
    ours, theirs = (
        [float(rotation.diagonal()[-1]) for rotation in rotations(tiny_backbone, edit)]
        for edit in (OCE(determinant=how, **SMALL).unlearn(tiny_backbone, SANTA) for how in ("smallest", "column"))
    )
    assert min(ours) > 0
    assert min(theirs) < -0.3


def test_the_target_is_reflected(tiny_backbone):
    """As with the paper's scales: the cosine of new and old target values is near -1."""
    edit = OCE(determinant="free", **SMALL).unlearn(tiny_backbone, Concept("santa claus"))
    assert edit.provenance.extra["target_cosine"] < -0.5
    nothing = OCE(erase_scale=0.0, **SMALL).unlearn(tiny_backbone, SANTA)
    assert all(delta.abs().max() < 1e-5 for delta in nothing.deltas.values())


def test_an_anchor_takes_its_own_part_out():
    """Where target and anchor have the same values there is nothing to erase."""
    weight, rows, retained = random(4, 6), random(1, 6, seed=1), random(3, 6, seed=2)
    prior = retained.T @ retained / 3
    method = OCE(erase_scale=50)
    same = method.objective(weight, RowPairs(keys=rows, sources=2 * rows), retained=retained, prior=prior)
    nothing = OCE(erase_scale=0).objective(weight, RowPairs(keys=rows, sources=rows), retained=retained, prior=prior)
    torch.testing.assert_close(same, nothing)
