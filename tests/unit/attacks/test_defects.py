"""Defects of published code that would touch attacks, each as a test of ours (peers' names in the tests)."""

import dataclasses

import numpy as np
import pytest
import torch

from aizheimer.attacks.img2img import Img2Img
from aizheimer.attacks.inpaint import Inpaint
from aizheimer.attacks.noise_inversion import NoiseInversion
from aizheimer.attacks.quantise import Quantise
from aizheimer.attacks.relearn import Relearn
from aizheimer.attacks.run import run_attack
from aizheimer.attacks.sampler import Sampler
from tests.unit.attacks.conftest import SANTA, SETTINGS
from tests.unit.edits.test_edit import K, bits, edit_of, same
from tests.unit.evaluation.builders import MemoryJudge

ATTACKS = (
    Relearn(steps=1, looks=(), pictures=1),
    Quantise(bits=(8,)),
    Sampler(samplers=("euler",), scales=(1.0,)),
    Img2Img(curve=()),
    Inpaint(),
    NoiseInversion(),
)


class BrokenJudge(MemoryJudge):
    """A detector that cannot read a picture."""

    def judge(self, images):
        raise RuntimeError("cannot read this picture")


def test_eval_unlearn_judge_that_fails_is_an_error_and_never_a_failed_attack(tiny_backbone):
    before = bits(tiny_backbone.pipe)
    with pytest.raises(RuntimeError, match="cannot read this picture"):
        run_attack(
            Img2Img(curve=()), backbone=tiny_backbone, edit=edit_of(tiny_backbone.pipe), concept=SANTA,
            judge=BrokenJudge(("Santa Claus", "cat")), settings=SETTINGS,
        )  # fmt: skip
    assert same(before, bits(tiny_backbone.pipe))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_eval_unlearn_p4d_attacked_the_original_ours_attack_the_edited_model(subject, attack):
    unet, during = subject.backbone.pipe.unet, []
    edited = unet.get_parameter(K).detach().clone()
    handle = unet.register_forward_hook(lambda *_: during.append(unet.get_parameter(K).detach().clone()))
    try:
        attack.attack(subject)
    finally:
        handle.remove()
    # The unedited model draws what is given; whoever searches and draws after that has the edited weights.
    base = edited - subject.edit.deltas[f"unet.{K}"]
    assert torch.dist(during[-1], edited) < 0.1 * torch.dist(base, edited)


def test_eval_unlearn_cli_dropped_the_seed_ours_moves_everything(subject):
    other = dataclasses.replace(subject, settings=SETTINGS.model_copy(update={"seed": 5}))
    assert [job.seed for job in other.jobs] == [5, 5]
    attack = Img2Img(curve=())
    assert not np.array_equal(attack.attack(subject).images, attack.attack(other).images)
