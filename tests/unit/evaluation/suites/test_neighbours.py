"""Retain accuracy by distance: the spread, the figures by hand, and one cache with an ordinary evaluation."""

import numpy as np
import pytest

from aizheimer.errors import InputError
from aizheimer.evaluation.evaluate import evaluate
from aizheimer.evaluation.suites.neighbours import Neighbours, spread
from tests.unit.evaluation.builders import WordEdit
from tests.unit.evaluation.suites.scenes import NOTO, SANTA, SETTINGS, counting, learn, numbers, scene_of

SUITE = Neighbours(concepts=8, nearest=3, images=2)


@pytest.mark.parametrize(("count", "first"), [(3, 3), (5, 3), (20, 3), (2, 5), (1, 1)])
def test_the_spread_has_the_nearest_and_reaches_the_end(count, first):
    ranked = [(str(i), -float(i)) for i in range(12)]
    found = [int(label) for label, _ in spread(ranked, count, first=first)]
    assert found[: min(first, count)] == list(range(min(first, count)))
    assert found == sorted(set(found))
    assert len(found) == min(count, 12)
    assert found[-1] == 11 or count <= first or count == first + 1


def test_damage_shows_where_it_is(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("claus"))
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    rows = {row["concept"]: row for row in result.tables["concepts"]}
    assert len(rows) == 8
    assert rows["mrs claus"]["edited"] == 0
    assert all(row["unedited"] == 1 and row["edited"] == (name != "mrs claus") for name, row in rows.items())
    assert numbers(result) == {
        "ira": (1, pytest.approx(7 / 8)),
        "ira.nearest": (1, pytest.approx(2 / 3)),
        "ira.far": (1, 1),
    }
    distances = [row["distance"] for row in result.tables["concepts"]]
    assert distances == sorted(distances)
    assert [row["concept"] for row in result.tables["nearest"]] == list(rows)[:3]
    (curve,) = result.tables["curve"]
    assert curve["concepts"] == 8
    assert (curve["low"] is None) == (curve["reason"] != "")
    assert curve["degenerate"] > 0.25, "one damaged concept of eight: a third of the resamples miss it"
    assert "hold no damage" in curve["reason"]


def test_no_edit_has_no_damage_and_so_no_distance(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone)
    learn(monkeypatch, SUITE, scene)
    (curve,) = SUITE.run(scene).tables["curve"]
    assert (curve["half_distance"], curve["reason"]) == (None, "no damage")


def test_an_evaluation_has_drawn_its_pictures_already(tiny_backbone, tiny_world, monkeypatch, tmp_path):
    settings = SETTINGS.model_copy(update={"target_images": 1, "neighbours": 10, "neighbour_images": 2, "others": 0})
    scene = scene_of(tiny_backbone, edit=WordEdit("claus"), cache=tmp_path, settings=settings)
    evaluate(
        tiny_backbone.pipe, scene.edit, concept=SANTA, world=tiny_world, judges=scene.judges, settings=settings,
        cache_dir=tmp_path,
    )  # fmt: skip
    with counting(monkeypatch) as drawn:
        result = SUITE.run(scene)
    assert drawn == []
    assert result.figures["ira"].n == 8


def test_too_few_concepts_have_no_curve(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("flat"), concept=NOTO)
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    assert "curve" not in result.tables
    assert any("the damage curve, for 2 concepts are fewer than 6" in line for line in result.warnings)
    assert {row["concept"]: row["edited"] for row in result.tables["concepts"]} == {"twemoji": 1, "flat": 0}


def test_a_judge_that_lacks_some_and_one_that_lacks_all(tiny_backbone):
    result = SUITE.run(scene_of(tiny_backbone, objects=("cat", "dog", "tree")))
    assert {row["concept"] for row in result.tables["concepts"]} == {"cat", "dog", "tree"}
    assert "left out: 7 objects that the judge has no class for" in result.warnings
    with pytest.raises(InputError, match="knows none of the 10 objects"):
        SUITE.run(scene_of(tiny_backbone, objects=("chair",)))


def test_distances_are_the_models_own(tiny_backbone):
    scene = scene_of(tiny_backbone)
    rows = SUITE.run(scene).tables["concepts"]
    vectors = tiny_backbone.embed_concepts(["santa claus", *(row["concept"] for row in rows)]).double().numpy()
    cosines = vectors[1:] @ vectors[0] / np.linalg.norm(vectors[1:], axis=1) / np.linalg.norm(vectors[0])
    assert [row["distance"] for row in rows] == pytest.approx(1 - cosines, abs=1e-5)
