"""One person among others, and the pictures in which nobody is seen."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from aizheimer.concepts.concept import Concept
from aizheimer.detectors.identity import FacesSeen
from aizheimer.errors import InputError
from aizheimer.evaluation.suites.identity import Identity
from tests.tiny import LABELS
from tests.unit.evaluation.builders import DecoderEdit, MemoryJudge, WordEdit
from tests.unit.evaluation.suites.scenes import NOTO, counting, learn, numbers, scene_of

PEOPLE = ("santa claus", "mrs claus", "old man", "woman")
SUITE = Identity(people=PEOPLE, images=4, similar=2, dissimilar=1, retain_images=2)


def test_the_target_goes_and_the_others_stay(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("santa"))
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    assert numbers(result) == {
        "ua": (0, 1), "ira.similar": (1, 1), "ira.dissimilar": (1, 1), "nobody.target": (0, 1), "nobody.retain": (0, 0),
    }  # fmt: skip
    assert {row["person"] for row in result.tables["people"]} == set(PEOPLE[1:])
    assert [row["set"] for row in result.tables["people"]] == ["similar", "similar", "dissimilar"]
    assert result.figures["ua"].n == 4


def test_dropping_faceless_pictures_flatters_and_is_shown(tiny_backbone, monkeypatch):
    """gcd: images without a face are dropped, so that a model that draws nobody has no wrong face: show how many."""
    scene = scene_of(tiny_backbone, edit=DecoderEdit())
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    rows = {row["set"]: row for row in result.tables["gcd"]}
    assert rows["similar"]["accuracy_edited"] is None
    assert (rows["similar"]["with_person_unedited"], rows["similar"]["with_person_edited"]) == (4, 0)
    assert numbers(result)["nobody.target"] == numbers(result)["nobody.retain"] == (0, 1)
    assert numbers(result)["ira.similar"] == (1, 0), "a faceless picture is no kept person"


def test_gcd_counts_the_pictures_with_a_person_alone(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone)
    learn(monkeypatch, SUITE, scene)
    known = scene.judges.object.known
    mine = [key for key, name in known.items() if name == "santa claus"]
    known[mine[0]], known[mine[1]] = None, "cat"  # nobody, twice
    known[mine[2]] = "woman"
    result = SUITE.run(scene)
    assert result.figures["nobody.target"].value == 0.5
    assert result.figures["ua"].value == 0.75
    row = result.tables["gcd"][0]
    assert (row["with_person_edited"], row["accuracy_edited"]) == (2, 0.5)
    assert (result.calibration.false_negative.value, result.calibration.false_negative.n) == (0.75, 4)
    assert (result.calibration.false_positive.value, result.calibration.false_positive.n) == (0, 6)


def test_prompts_that_the_unedited_model_fails_on_are_left_out_on_request(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("santa"))
    learn(monkeypatch, SUITE, scene)
    known = scene.judges.object.known
    mine = [key for key, name in known.items() if name == "santa claus"]
    known[mine[1]] = "woman"
    counted, left_out = SUITE.run(scene), SUITE.model_copy(update={"effective_only": True}).run(scene)
    assert (counted.figures["ua"].original, counted.figures["ua"].n) == (0.25, 4)
    assert (left_out.figures["ua"].original, left_out.figures["ua"].n) == (0, 3)
    assert len(left_out.tables["ineffective"]) == 1
    assert left_out.tables["gcd"] == counted.tables["gcd"]


def test_a_person_who_is_not_listed_is_a_wrong_name_and_not_nobody(tiny_backbone, monkeypatch):
    """Three of four pictures show another person whom the judge knows: GCD counts all four, one of them right."""
    scene = scene_of(tiny_backbone, objects=(*LABELS, "a celebrity"))
    suite = Identity(people=PEOPLE[:2], images=4, similar=1, retain_images=1)
    learn(monkeypatch, suite, scene)
    known = scene.judges.object.known
    for key in [key for key, name in known.items() if name == "santa claus"][:3]:
        known[key] = "a celebrity"
    result = suite.run(scene)
    assert (result.figures["nobody.target"].value, result.figures["ua"].value) == (0, 0.75)
    row = result.tables["gcd"][0]
    assert (row["with_person_edited"], row["accuracy_edited"]) == (4, 0.25)
    assert result.tables["harmonic"] == [{"unedited": pytest.approx(6 / 7), "edited": pytest.approx(6 / 7)}]


def test_a_judge_that_looks_for_faces_says_itself_where_nobody_is(tiny_backbone, monkeypatch):
    """A face that it cannot name is a stranger; a name without a face is a picture without a face."""

    @dataclass
    class Faces(MemoryJudge):
        def look(self, images):
            seen = self.judge(images)
            return FacesSeen(seen, np.array([label != "no face" for label in seen.labels]))

    scene = scene_of(tiny_backbone)
    scene = replace(scene, judges=replace(scene.judges, object=Faces((*PEOPLE, "no face"), name="faces")))
    learn(monkeypatch, SUITE, scene)
    known = scene.judges.object.known
    mine = [key for key, name in known.items() if name == "santa claus"]
    known[mine[0]], known[mine[1]] = None, "no face"
    result = SUITE.run(scene)
    assert result.figures["nobody.target"].value == 0.25
    assert "no face" in result.figures["nobody.target"].protocol
    assert result.tables["gcd"][0]["with_person_edited"] == 3


def test_the_judge_may_say_who_is_a_person(tiny_backbone, monkeypatch):
    suite = SUITE.model_copy(update={"people": "judge"})
    scene = scene_of(tiny_backbone, objects=PEOPLE)
    learn(monkeypatch, suite, scene)
    assert {row["person"] for row in suite.run(scene).tables["people"]} == set(PEOPLE[1:])


def test_the_worlds_group_without_what_is_no_person(tiny_backbone):
    suite = Identity(group="things", nobody=("cat", "dog", "tree", "car", "tiger"), images=1, retain_images=1)
    result = suite.run(scene_of(tiny_backbone))
    assert {row["person"] for row in result.tables["people"]} == {
        "mrs claus",
        "old man",
        "woman",
        "red apple",
        "grapes",
    }
    assert any("dissimilar" in line for line in result.warnings)


@pytest.mark.parametrize(
    ("fields", "concept", "objects", "wanted"),
    [
        ({}, NOTO, PEOPLE, "'noto' is a style"),
        ({}, Concept("cat"), (*PEOPLE, "cat"), "'cat' is none of its 4 people"),
        ({"people": ("woman", "Woman", "santa claus")}, None, PEOPLE, "people: got 'woman' more than once"),
        ({"people": ("santa claus",)}, None, PEOPLE, "nobody beside the target"),
        ({}, None, PEOPLE[:2], "has 2 classes, none of them 'old man', 'woman'"),
        ({"people": "world"}, None, PEOPLE, "is none of its 0 people"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_drawn(tiny_backbone, monkeypatch, fields, concept, objects, wanted):
    scene = scene_of(tiny_backbone, concept=concept or Concept("santa claus"), objects=objects)
    with counting(monkeypatch) as drawn, pytest.raises(InputError, match=wanted):
        SUITE.model_copy(update=fields).run(scene)
    assert drawn == []
