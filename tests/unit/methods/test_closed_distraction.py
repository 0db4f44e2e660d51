"""Closed-form distraction's options: values in the null space of what is held, and synonyms' rows."""

import pytest
import torch

from aizheimer.concepts.concept import Concept
from aizheimer.data.rows import anchor_pairs, encode_rows, row_scale
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import RecipeError
from aizheimer.methods._closed_distraction import ClosedDistraction
from aizheimer.modules.subspace import null_space

SANTA = Concept("santa claus", anchor="man")
SMALL = {"prompts": "bare", "retain_neighbours": 1, "retain_others": 0, "retain_general": 0, "metric": "identity"}


def unlearned(backbone, **options):
    heard = {}
    edit = ClosedDistraction(**SMALL | options).unlearn(backbone, SANTA, callbacks=Callbacks(on_data=heard.update))
    kept = encode_rows(backbone, ["", *heard["retain_prompts"]], scale=row_scale(backbone)).flatten(0, 1)
    return edit, kept


def moved(edit, rows, *, part):
    """How far rows' answers move, the largest over the layers."""
    found = [rows @ delta.double().T for name, delta in edit.deltas.items() if name.endswith(f"{part}.weight")]
    return max(float(torch.linalg.vector_norm(answer)) for answer in found)


class TestValuesInTheNullSpace:
    def test_values_of_what_is_held_move_by_no_more_than_was_dropped_and_keys_as_before(self, tiny_backbone):
        ridge, kept = unlearned(tiny_backbone, residual=None)
        tolerance = 0.05
        free, _ = unlearned(tiny_backbone, residual=None, values="null-space", tolerance=tolerance)
        space = null_space(kept, tolerance=tolerance)
        largest = max(
            float(torch.linalg.matrix_norm(delta.double() @ space.basis, 2))
            for name, delta in free.deltas.items()
            if name.endswith("to_v.weight")
        )
        assert largest > 0
        dropped = float(torch.linalg.vector_norm(kept @ space.projector))
        assert moved(free, kept, part="to_v") <= largest * dropped * 1.001 + 1e-5
        assert moved(free, kept @ (torch.eye(kept.shape[1]) - space.projector), part="to_v") < 1e-4 * moved(
            ridge, kept, part="to_v"
        )
        for name, delta in free.deltas.items():
            assert torch.equal(delta, ridge.deltas[name]) is name.endswith("to_k.weight")

    def test_values_are_the_best_among_those_that_leave_the_space_alone(self, tiny_backbone):
        """The gradient of what they minimise, in the directions that are free, is zero."""
        tolerance, lam = 0.05, 0.01
        edit, kept = unlearned(tiny_backbone, residual=None, values="null-space", tolerance=tolerance, ridge=lam)
        pairs = anchor_pairs(
            tiny_backbone,
            ["santa claus"],
            concept=SANTA,
            policy=("concept", "others"),
            empty="auto",
            scale=row_scale(tiny_backbone),
        )
        basis = null_space(kept, tolerance=tolerance).basis
        parameters = dict(tiny_backbone.denoiser.named_parameters())
        values = [name for name in edit.deltas if name.endswith("to_v.weight")]
        assert values
        for name in values:
            weight = parameters[name.removeprefix("unet.")].detach().double()
            norms = []
            for start in (edit.deltas[name].double() @ basis, torch.zeros(len(weight), basis.shape[1]).double()):
                change = start.requires_grad_(True)
                missed = pairs.keys @ (weight + change @ basis.T).T - pairs.sources @ weight.T
                loss = missed.square().sum(1).mean() + lam * change.square().sum()
                norms.append(torch.autograd.grad(loss, change)[0].norm())
            assert norms[0] < 1e-5 * norms[1]

    def test_nothing_free_is_told(self, tiny_backbone):
        with pytest.raises(RecipeError, match="raise the tolerance"):
            unlearned(tiny_backbone, values="null-space", tolerance=0.0, retain_neighbours=6, retain_others=4)


class TestSynonyms:
    def test_their_rows_go_the_way_of_the_concepts(self, tiny_backbone):
        scale = row_scale(tiny_backbone)

        def left(edit):
            """The share of the way to the anchor that the synonym's rows did not go, in the values."""
            pairs = anchor_pairs(
                tiny_backbone,
                ["cat"],
                concept=Concept("cat", anchor="man"),
                policy=("concept", "others"),
                empty="auto",
                scale=scale,
            )
            parameters = dict(tiny_backbone.denoiser.named_parameters())
            name = next(name for name in edit.deltas if name.endswith("to_v.weight"))
            weight = parameters[name.removeprefix("unet.")].detach().double()
            wanted = (pairs.sources - pairs.keys) @ weight.T
            return float((wanted - pairs.keys @ edit.deltas[name].double().T).norm() / wanted.norm())

        options = {"residual": None, "preserve": 0.01, "prior": 0.0}
        alone, _ = unlearned(tiny_backbone, **options)
        both, _ = unlearned(tiny_backbone, synonyms=("cat",), **options)
        assert left(both) < 0.3 * left(alone)
