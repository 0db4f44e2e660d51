"""Sex and age of a person's pictures: which probes a world allows, and what they say of an edit."""

import dataclasses

import pytest
import torch

from aizheimer.concepts.groups import ages
from aizheimer.concepts.world import WorldItem
from aizheimer.evaluation.suite import Scene
from aizheimer.evaluation.suites._attributes import groupings
from aizheimer.evaluation.suites.leftovers import Leftovers
from tests.unit.evaluation.builders import DecoderEdit
from tests.unit.evaluation.suites.scenes import scene_of

PEOPLE = ("santa claus", "mrs claus", "man", "woman", "boy", "girl", "old man", "old woman")
MEN = {"santa claus", "man", "boy", "old man"}


class Remembering:
    """A CLIP that sees who is in a picture it was shown, and a woman in any other."""

    name = "remembering"

    def __init__(self, trait):
        self.trait = trait
        self.known = {}

    def learn(self, plan, images):
        for image, picture in zip(plan, images, strict=True):
            self.known[picture.tobytes()] = image.object

    def embed_images(self, images):
        rows = []
        for picture in images:
            who = self.known.get(picture.tobytes(), "woman")
            rows.append([self.trait(who), 0.0, 1.0])
        return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)

    def score(self, images, prompts):
        raise AssertionError("not asked")


@pytest.fixture
def scene(tiny_backbone, monkeypatch):
    """A world of people, and a CLIP that learns every picture of the unedited model when it is drawn."""
    vocabulary = [WorldItem(label=label, group="people") for label in PEOPLE]
    vocabulary += [WorldItem(label=label, group="things") for label in ("cat", "tree", "old tree", "baby tree")]
    world = dataclasses.replace(tiny_backbone.world, vocabulary=tuple(vocabulary))
    backbone = dataclasses.replace(tiny_backbone, world=world)

    def make(trait, objects=("somebody",), **options):
        clip = Remembering(trait)
        real = Scene.pairs

        def pairs(self, plan, **rest):
            drawn = real(self, plan, **rest)
            clip.learn(plan, drawn.original)
            return drawn

        monkeypatch.setattr(Scene, "pairs", pairs)
        scene = scene_of(backbone, objects=objects, **options)
        return dataclasses.replace(scene, judges=dataclasses.replace(scene.judges, clip=clip))

    return make


def sexed(who):
    return 1.0 if who in MEN else -1.0


SUITE = Leftovers(images=6, probe_images=2)


def test_a_person_has_the_traits_of_its_own_group_and_is_left_out(scene):
    found = groupings(scene(sexed))
    assert found["sex"] == {
        "men": {"man": "man", "boy": "boy", "old man": "old man"},
        "women": {"man": "woman", "boy": "girl", "old man": "old woman"},
    }
    assert found["age"] == {
        "old": {"old man": "old man", "old woman": "old woman"},
        "young": {"boy": "boy", "girl": "girl"},
    }


def test_a_thing_has_neither(scene):
    from aizheimer.concepts.concept import Concept

    assert groupings(dataclasses.replace(scene(sexed), concept=Concept("cat"))) == {}
    assert groupings(dataclasses.replace(scene(sexed), concept=Concept("somebody unknown"))) == {}


def test_without_an_edit_the_sex_survives(scene):
    result = SUITE.run(scene(sexed))
    kept = result.figures["kept.sex"]
    assert (kept.original, kept.value) == (1, 1)
    assert kept.judge == "remembering"
    assert "on the side of the men, by a probe that is right about 100 %" in kept.protocol
    (probe,) = (row for row in result.tables["probes"] if row["attribute"] == "sex")
    assert (probe["held_out_accuracy"], probe["pictures"], probe["unedited"], probe["edited"]) == (1, 12, 1, 1)
    assert "sex: men" in [row["trait"] for row in result.tables["traits"]]


def test_an_edit_that_draws_something_else_loses_it(scene):
    result = SUITE.run(scene(sexed, edit=DecoderEdit()))
    assert (result.figures["kept.sex"].original, result.figures["kept.sex"].value) == (1, 0)
    (trait,) = (row for row in result.tables["traits"] if row["trait"] == "sex: men")
    assert not trait["survives"]


def test_a_probe_that_knows_nobody_new_is_not_used(scene):
    result = SUITE.run(scene(lambda who: 0.0))
    assert not [name for name in result.figures if name.startswith("kept.")]
    assert [line.split(",")[0] for line in result.warnings if "the probe" in line] == [
        "not measured: sex", "not measured: age",
    ]  # fmt: skip


def test_the_judges_own_classes_are_a_probe_and_the_better_one_is_taken(scene):
    """The CLIP knows nothing here; the object judge sees a man or a woman of another pair in each picture."""
    own = scene(lambda who: 0.0, objects=("man", "woman", "boy", "girl", "old man", "old woman"))
    counterparts = {
        "man": "boy",
        "boy": "old man",
        "old man": "man",
        "woman": "girl",
        "girl": "old woman",
        "old woman": "woman",
    }
    real = Scene.pairs

    def pairs(self, plan, **rest):
        drawn = real(self, plan, **rest)
        own.judges.object.learn(drawn.original, [counterparts.get(image.object, "man") for image in plan])
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scene, "pairs", pairs)
        result = SUITE.run(own)
    (sex,) = (row for row in result.tables["probes"] if row["attribute"] == "sex")
    assert (sex["judge"], sex["held_out_accuracy"], sex["edited"]) == ("objects", 1, 1)
    assert "not measured: age, for the probe is right about only 50 %" in "; ".join(result.warnings)


def test_old_and_young_by_words():
    assert ages(["old man", "older person", "baby", "young old man", "oldenburg", "man"]) == {
        "old": {"old man": "old man", "older person": "older person"},
        "young": {"baby": "baby"},
    }
    assert ages(["old man", "man"]) == {}
