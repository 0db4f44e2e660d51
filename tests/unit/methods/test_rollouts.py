"""Methods that train on the way from noise: latents of the edited model, or of the frozen one's bank."""

import pytest

from aizheimer.backbones.counting import counted
from aizheimer.concepts import Concept
from aizheimer.methods.esd import ESD
from aizheimer.methods.receler import Receler
from aizheimer.methods.spm import SPM
from tests.tiers import all_but
from tests.trained import SMALL, check_method, check_resume, small, tiny_backbone

CONCEPT = Concept("santa claus")
BANK = {"rollout": "teacher", "rollouts": SMALL["rollouts"] | {"keep": "float16"}}
METHODS = {
    "esd": (ESD, {}),
    "spm": (SPM, {"anchors": 1}),
    "spm of several words": (SPM, {"anchors": 1, "also": ("cat",)}),
    "receler": (Receler, {"attack_steps": 1, "attack_tokens": 2, "mask_shrink": 2}),
}


def method_of(name, **options):
    kind, own = METHODS[name]
    return small(kind, **own | options)


@pytest.mark.long
@pytest.mark.parametrize("name", all_but(["spm of several words"], METHODS))
def test_a_bank_in_half_precision_trains_and_resumes_to_the_same_bits(name, tmp_path):
    method = method_of(name, **BANK, training={"checkpoint_every": 1})
    check_method(method, CONCEPT, drift=1e-6)  # the targets are rounded to 11 bits
    check_resume(method, CONCEPT, tmp_path / "run", at=3)


@pytest.mark.long
@pytest.mark.parametrize("name", ["esd", "spm", "receler"])
def test_with_a_bank_updates_cost_no_rollouts(name, tmp_path, monkeypatch):
    """Between two lengths of a run only updates differ; the bank is there from the first run on."""
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path))

    def cost(steps, rollout):
        rollouts = SMALL["rollouts"] | {"steps": 40}
        training = {"steps": steps, "monitor_every": 100, "batch_size": 1}
        backbone = tiny_backbone()
        method = method_of(name, rollout=rollout, rollouts=rollouts, training=training)
        with counted(backbone) as count:
            method.unlearn(backbone, CONCEPT)
        return count.latents

    for who in ("student", "teacher"):
        cost(1, who)  # what is made once is made
    student, teacher = (cost(6, who) - cost(2, who) for who in ("student", "teacher"))
    own = {"esd": 1, "spm": 5, "receler": 4}[name]  # the update's own passes: the student's, and targets asked for live
    assert teacher == 4 * own
    live = 2 if name == "esd" else 0  # its targets are in the bank
    rolled = student - 4 * (own + live)
    assert rolled % 2 == 0  # two rows of a guided step
    assert 4 * 5 < rolled / 2 < 4 * 35  # of 40 steps, stopped at random
    assert student > 5 * teacher


def test_the_bank_is_the_frozen_models_and_the_same_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path))
    backbone = tiny_backbone()
    for name in ("esd", "spm", "receler"):
        before = {path.name for path in tmp_path.iterdir()}
        method_of(name, **BANK, training={"steps": 1}).unlearn(backbone, CONCEPT)
        added = {path.name for path in tmp_path.iterdir()} - before
        assert bool(added) == (name == "esd")
