"""Groups: what each lost, the gap by hand, and the wrong sex counted by the judge."""

import dataclasses

import pytest

from aizheimer.concepts.world import WorldItem
from aizheimer.errors import InputError
from aizheimer.evaluation.reuse import why_again
from aizheimer.evaluation.suite import asked_of
from aizheimer.evaluation.suites.fairness import Fairness
from tests.unit.evaluation.builders import WordEdit
from tests.unit.evaluation.suites.scenes import NOTO, SANTA, counting, learn, numbers, scene_of

GROUPS = {"men": ("old man", "cat", "dog"), "women": ("woman", "tree", "car")}
SUITE = Fairness(groups=GROUPS, paired=True, images=3)


def world_with(backbone, monkeypatch, labels):
    world = dataclasses.replace(backbone.world, vocabulary=tuple(WorldItem(label, "people") for label in labels))
    monkeypatch.setitem(vars(backbone), "world", world)  # of this one alone: it is frozen


def test_what_groups_lost(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("woman"))
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    assert numbers(result)["ira.men"] == (1, 1)
    assert numbers(result)["ira.women"] == (1, pytest.approx(2 / 3))
    assert numbers(result)["gap.given"] == (0, pytest.approx(1 / 3))
    (gap,) = result.tables["gaps"]
    assert (gap["most"], gap["least"], gap["paired"]) == ("women", "men", True)
    assert not gap["distinguishable"], "one of three pairs proves nothing"
    assert gap["low"] <= gap["gap"] <= gap["high"]
    assert gap["n"] == result.figures["gap.given"].n == 3, "pairs, not members of both groups"
    (warning,) = result.warnings
    assert warning.startswith("gap.given: 3 pairs can never be told from no gap: the smallest p-value")
    assert "0.25, above 0.05" in warning
    assert {row["concept"]: row["edited"] for row in result.tables["members"]}["woman"] == 0


def test_everybody_is_asked_for_with_the_same_prompts_and_seeds(tiny_backbone, monkeypatch):
    plan = learn(monkeypatch, SUITE, scene_of(tiny_backbone))
    asked = {}
    for image in plan:
        asked.setdefault(image.object, []).append((image.prompt.replace(image.object, "X"), image.seed))
    assert len(asked) == 6
    assert len({tuple(jobs) for jobs in asked.values()}) == 1


def test_the_wrong_sex_is_counted(tiny_backbone, monkeypatch):
    """The paper's Table I: overfitting inverts the apparent sex. A judge says so, not the eye."""
    scene = scene_of(tiny_backbone)
    learn(monkeypatch, SUITE, scene)
    known = scene.judges.object.known
    women = [key for key, name in known.items() if name == "woman"]
    known[women[0]] = "old man"
    known[women[1]] = None
    result = SUITE.run(scene)
    assert result.figures["inverted.women"].value == pytest.approx(1 / 9)
    assert result.figures["inverted.men"].value == 0
    assert result.figures["ira.women"].value == pytest.approx(7 / 9)


def test_pairs_are_found_in_the_worlds_words_and_the_targets_own_is_left_out(tiny_backbone, monkeypatch):
    labels = ("man", "woman", "old man", "old woman", "santa claus", "boy", "girl")
    world_with(tiny_backbone, monkeypatch, labels)
    concept = dataclasses.replace(SANTA, target="boy")
    scene = scene_of(tiny_backbone, edit=WordEdit("old"), concept=concept, objects=labels)
    suite = Fairness(images=2)
    learn(monkeypatch, suite, scene)
    result = suite.run(scene)
    assert {row["concept"] for row in result.tables["members"]} == {"man", "woman", "old man", "old woman"}
    assert numbers(result)["gap.sex"] == (0, 0)
    assert numbers(result)["ira.men"] == numbers(result)["ira.women"] == (1, 0.5)
    none, few = result.warnings
    assert none == "not measured: skin tones, for the world has none"
    assert few.startswith("gap.sex: 2 pairs can never be told from no gap")


def test_skin_tones_where_the_world_has_them(tiny_backbone, monkeypatch):
    labels = tuple(f"{who}: {tone} skin tone" for who in ("man", "woman") for tone in ("light", "dark"))
    world_with(tiny_backbone, monkeypatch, labels)
    suite = Fairness(images=1)
    scene = scene_of(tiny_backbone, objects=labels)
    learn(monkeypatch, suite, scene)
    assert numbers(suite.run(scene))["gap.tone"] == (0, 0)


def test_groups_as_a_whole_count_by_the_smallest(tiny_backbone, monkeypatch):
    groups = {"men": ("old man", "cat", "dog"), "women": ("woman", "tree")}
    scene = scene_of(tiny_backbone)
    suite = Fairness(groups=groups, images=1)
    learn(monkeypatch, suite, scene)
    result = suite.run(scene)
    assert result.figures["gap.given"].n == 2
    assert "accuracy lost: none; groups compared as a whole" in result.figures["gap.given"].protocol
    (row,) = result.tables["gaps"]
    assert (row["gap"], row["low"], row["high"]) == (0, None, None), "an interval of no width is not certainty"
    assert result.warnings[0].startswith("gap.given: groups of 2 can never be told from no gap")


def test_a_result_that_counted_members_is_measured_again(tiny_backbone, monkeypatch):
    """A gate took twice the pairs for n: a result of before must not stand for today's."""
    scene = scene_of(tiny_backbone)
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    asked = asked_of(SUITE, scene)
    old = result.model_copy(update={"made_from": {k: v for k, v in result.made_from.items() if k != "edition"}})
    assert why_again(old, {**asked, "made_from": result.made_from}).startswith("edition was None")
    assert why_again(result, {**asked, "made_from": result.made_from}) == ""


def test_a_style_is_not_asked_for_when_it_is_the_target(tiny_backbone, monkeypatch):
    plan = learn(monkeypatch, SUITE, scene_of(tiny_backbone, concept=NOTO))
    assert not any("noto" in image.prompt for image in plan)


@pytest.mark.parametrize(
    ("suite", "wanted"),
    [
        (Fairness(), "no pairs of men and women and no skin tones"),
        (Fairness(groups={"a": ("cat",)}), "got 1, wanted two or more"),
        (Fairness(groups={"a": ("cat", "dog"), "b": ("Cat",)}), "groups: got 'cat' more than once"),
        (Fairness(groups={"a": ("cat",), "b": ("dog", "tree")}, paired=True), "as many in each"),
        (Fairness(groups={"a": ("cat",), "b": ("santa claus",)}), "nobody in it beside the target"),
        (Fairness(groups={"a": ("cat",), "b": ("king",)}), "none of them 'king'"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_drawn(tiny_backbone, monkeypatch, suite, wanted):
    with counting(monkeypatch) as drawn, pytest.raises(InputError, match=wanted):
        suite.run(scene_of(tiny_backbone))
    assert drawn == []
