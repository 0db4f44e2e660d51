"""Attacks on every family that they say they work on, and their refusal of the others."""

import numpy as np
import pytest

from aizheimer._registry import ATTACKS
from aizheimer.attacks._drawing import PartialDDIM, draw_with, sampler
from aizheimer.attacks.base import AttackSettings, NotApplicable, Subject
from aizheimer.attacks.load import load_attack
from aizheimer.attacks.run import run_attack
from aizheimer.backbones.base import backbone_for
from aizheimer.backbones.families import FAMILIES
from aizheimer.concepts.concept import Concept
from aizheimer.recipes.load import load_recipe
from tests import tiny_families
from tests.tiny import tiny_world
from tests.unit.edits.test_edit import same
from tests.unit.evaluation.builders import MemoryJudge

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Euler and numpy 2
SANTA = Concept("santa claus")
SMALL = {
    "seed-search": ["tries=1"],
    "quantise": ["bits=[4]"],
    "sampler": ["samplers=[pndm]", "scales=[1.0]"],
    "relearn": ["steps=2", "pictures=2", "batch_size=2", "lr=0.1"],
    "img2img": ["curve=[]"],
}
CELLS = [(name, family) for name in ATTACKS for family in ATTACKS.get(name).info.families if family != "sd"]
REFUSED = [(name, family) for name in ATTACKS for family in FAMILIES if family not in ATTACKS.get(name).info.families]


@pytest.fixture(scope="module")
def subjects():
    """A model of each family with an edit of its own."""
    made = {}

    def make(family):
        if family not in made:
            backbone = backbone_for(tiny_families.BUILDERS[family](), world=tiny_world())
            edit = load_recipe("uce").method.unlearn(backbone, SANTA)
            settings = AttackSettings(images=2, steps=3, guidance=2.0)
            judge = MemoryJudge(("santa claus", "cat"))
            made[family] = Subject(backbone=backbone, edit=edit, concept=SANTA, judge=judge, settings=settings)
        return made[family]

    return make


def attacked(subject, name, **options):
    return run_attack(
        load_attack(name, SMALL.get(name, ())), backbone=subject.backbone, edit=subject.edit, concept=SANTA,
        judge=subject.judge, settings=subject.settings, **options,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "family"), CELLS)
def test_it_draws_something_else_and_leaves_the_model_as_it_was(subjects, name, family):
    subject = subjects(family)
    subject.judge.known.clear()
    subject.judge.learn(subject.draw(subject.jobs), ["santa claus"] * 2)
    before = {name: tensor.clone() for name, tensor in subject.backbone.denoiser.state_dict().items()}
    found = attacked(subject, name, controls="unedited")
    assert found.result.unedited_before.value == 1
    assert found.attacked.images.shape == found.before.images.shape
    assert not np.array_equal(found.attacked.images, found.before.images)
    assert same(before, subject.backbone.denoiser.state_dict())


def test_a_drawing_of_sdxl_goes_on_from_its_own_latents_to_the_same_picture(subjects):
    """What begins in the middle of a drawing has to meet the noise that this family's own steps would be at."""
    subject, kept = subjects("sdxl"), {}

    def keep(step, latents, rows):
        kept[step] = latents
        return latents

    whole = draw_with(subject, subject.jobs, scheduler=sampler(subject, PartialDDIM), after_step=keep)
    assert np.array_equal(whole, subject.draw(subject.jobs))
    scheduler = sampler(subject, PartialDDIM)
    scheduler.kept = 2
    rest = draw_with(subject, subject.jobs, scheduler=scheduler, latents=kept[0])
    assert int(np.abs(rest.astype(int) - whole.astype(int)).max()) <= 1


@pytest.mark.parametrize(("name", "family"), REFUSED)
def test_where_it_does_not_work_it_is_refused_with_its_reason(subjects, name, family):
    with pytest.raises(NotApplicable, match=f"{name} does not work on {FAMILIES[family].title}: .*; wanted Stable"):
        attacked(subjects(family), name)
