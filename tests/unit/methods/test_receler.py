"""Receler on a tiny pipeline: what it makes, how its adversary learns along, and what it refuses."""

import pytest
import torch
from pydantic import ValidationError

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.errors import ConceptError, EditError, InputError, SelectorError
from aizheimer.methods.receler import Receler
from tests.tiny import tiny_world
from tests.trained import check_method, same_edit, small, tiny_backbone

CONCEPT = Concept("santa claus", keep=("cat",))
QUICK = {"width": 4, "attack_steps": 2, "attack_tokens": 3}


@pytest.mark.long
def test_it_trains_an_eraser_after_every_cross_attention():
    edit, steps, data = check_method(small(Receler, **QUICK), CONCEPT)
    assert not edit.deltas
    assert data["parameters"] == []
    assert {name.rpartition(".")[0] for name in edit.hook.tensors} == set(data["layers"])
    assert {tuple(t.shape) for n, t in edit.hook.tensors.items() if n.endswith(".down")} == {(4, 32)}
    assert [list(row["losses"]) for row in steps] == [["erase", "outside", "attack"]] * 4
    assert [row["weights"]["attack"] for row in steps] == [0.0] * 4
    assert all(-1 <= row["cosine"] <= 1 for row in steps[1::2])


@pytest.mark.long
def test_chosen_layers_without_an_adversary_on_velocity_predictions():
    method = small(Receler, width=4, attack_steps=0, layers="^mid")
    edit, steps, _ = check_method(method, CONCEPT, pipeline={"prediction_type": "v_prediction", "pad_token": "!"})
    assert len(edit.hook.tensors) == 4
    assert all(name.startswith("mid_block") for name in edit.hook.tensors)
    assert all(row["losses"].keys() == {"erase", "outside"} for row in steps)


@pytest.mark.long
def test_the_adversary_and_the_mask_change_the_edit():
    plain, attacked, free = (
        small(Receler, **QUICK | options).unlearn(tiny_backbone(), CONCEPT)
        for options in ({"attack_steps": 0}, {}, {"outside_weight": 0.0})
    )
    assert not same_edit(plain, attacked)
    assert not same_edit(attacked, free)


def test_it_is_not_merged():
    backbone = tiny_backbone()
    edit = small(Receler, **QUICK).unlearn(backbone, CONCEPT)
    assert not edit.mergeable
    for merge in (edit.merged_state, edit.as_weights):
        with pytest.raises(EditError, match=r"method receler acts while pictures are drawn .*cannot be merged"):
            merge(backbone.pipe)


def test_an_edit_of_another_network_is_refused_and_leaves_it_alone():
    backbone = tiny_backbone()
    edit = small(Receler, **QUICK).unlearn(backbone, CONCEPT)
    other = tiny_backbone()
    del other.denoiser.mid_block
    forwards = {name: module.forward for name, module in other.denoiser.named_modules()}
    with pytest.raises(EditError, match="has no module 'mid_block"):
        edit.apply_to(backbone_for(other.pipe, world=tiny_world()).pipe, check_base=False)
    assert {name: module.forward for name, module in other.denoiser.named_modules()} == forwards
    assert torch.equal(next(other.denoiser.parameters()), next(backbone.denoiser.parameters()))


def test_what_cannot_be_is_refused():
    with pytest.raises(ConceptError, match=r"30 adversarial vectors do not fit.*set attack_tokens=23 or less"):
        small(Receler, **QUICK | {"attack_tokens": 30}).unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(InputError, match=r"mask_shrink=3: no cross-attention layer has 3 x 3 cells.*4 x 4"):
        small(Receler, **QUICK, mask_shrink=3).unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(SelectorError, match="nowhere"):
        small(Receler, layers="nowhere").unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ValidationError, match="stop_mass_ratio watches attention"):
        Receler(training={"stop_mass_ratio": 0.5})
