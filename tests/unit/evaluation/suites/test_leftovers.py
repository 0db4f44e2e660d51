"""What survives: a floor of unrelated pictures, and no picture drawn twice."""

import dataclasses

import pytest

from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.errors import InputError
from aizheimer.evaluation.suites.families import Families
from aizheimer.evaluation.suites.leftovers import Leftovers
from tests.unit.detectors.builders import save_clip
from tests.unit.evaluation.builders import DecoderEdit, WordEdit
from tests.unit.evaluation.suites.scenes import NOTO, counting, learn, numbers, scene_of

SUITE = Leftovers(images=8, classes=2)


def test_without_an_edit_everything_survives(tiny_backbone, monkeypatch, tmp_path):
    scene = scene_of(tiny_backbone)
    scene = dataclasses.replace(
        scene, judges=dataclasses.replace(scene.judges, clip=CLIPScore.load(save_clip(tmp_path / "clip")))
    )
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    traits = {row["trait"]: row for row in result.tables["traits"]}
    assert set(traits) == {"colour", "shape", "layout", "features"}
    for row in traits.values():
        assert row["likeness"] == pytest.approx(1, abs=1e-5)
        assert row["unrelated"] < row["likeness"]
        assert row["surplus"] == pytest.approx(row["likeness"] - row["unrelated"])
        assert row["trait"] == "features" or row["share_left"] == pytest.approx(1)
        assert row["survives"]
    assert result.figures["likeness.features"].judge == "clip score"
    assert result.figures["likeness.colour"].judge == "pixels"
    assert result.tables["seen_as"][0] == {"class": "santa claus", "unedited": 1, "edited": 1}


def test_a_destroyed_picture_keeps_less_than_unrelated_ones(tiny_backbone):
    result = SUITE.run(scene_of(tiny_backbone, edit=DecoderEdit()))
    traits = {row["trait"]: row for row in result.tables["traits"]}
    assert not traits["shape"]["survives"]
    assert traits["shape"]["share_left"] == 0
    assert numbers(result)["likeness.shape"] == (1, 0)


def test_the_floor_is_something_else_from_the_same_noise(tiny_backbone, monkeypatch):
    plan = learn(monkeypatch, SUITE, scene_of(tiny_backbone))
    target, floor = plan[:8], plan[8:]
    assert {image.object for image in target} == {"santa claus"}
    for one, other in zip(target, floor, strict=True):
        assert other.object != "santa claus"
        assert other.prompt == one.prompt.replace("santa claus", other.object)
        assert other.seed == one.seed
    assert len({image.object for image in floor}) == 8


def test_a_style_is_compared_with_another_style_of_the_same_subject(tiny_backbone, monkeypatch):
    plan = learn(monkeypatch, SUITE, scene_of(tiny_backbone, concept=NOTO, edit=WordEdit("noto")))
    assert all(b.prompt == a.prompt.replace("noto", b.style) for a, b in zip(plan[:8], plan[8:], strict=True))
    assert {image.style for image in plan[8:]} == {"flat", "twemoji"}


def test_a_second_suite_with_the_same_pictures_draws_none_of_them_again(tiny_backbone, monkeypatch, tmp_path):
    scene = scene_of(tiny_backbone, edit=WordEdit("santa"), cache=tmp_path)
    with counting(monkeypatch) as first:
        Families(images=8, families=("templates",)).run(scene)
    assert sum(first) > 16, "its own, and those that the judge is tried on"
    with counting(monkeypatch) as second:
        SUITE.run(scene)
    assert 0 < sum(second) <= 8, "only unrelated pictures are new, and some of them the judge was tried on"
    with counting(monkeypatch) as third:
        SUITE.model_copy(update={"classes": 3}).run(scene)
    assert third == []


def test_a_world_with_nothing_else(tiny_backbone, monkeypatch):
    world = dataclasses.replace(tiny_backbone.world, vocabulary=())
    monkeypatch.setattr(type(tiny_backbone), "world", property(lambda self: world))
    with pytest.raises(InputError, match="has no other object to compare with"):
        SUITE.run(scene_of(tiny_backbone))
