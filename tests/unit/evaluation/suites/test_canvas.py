"""UnlearnCanvas's protocol: the grid by hand, its switches, its own names, and one cache for all of them."""

import dataclasses

import pytest
from pydantic import ValidationError

from aizheimer.concepts.concept import Concept
from aizheimer.errors import InputError
from aizheimer.evaluation.suite_file import load_suite
from aizheimer.evaluation.suites.canvas import Canvas
from tests.unit.evaluation.builders import WordEdit
from tests.unit.evaluation.suites.scenes import NOTO, SANTA, counting, learn, numbers, scene_of

SUITE = Canvas(objects=("santa claus", "mrs claus", "cat"), seeds=(0, 1))


def test_an_object(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("claus"))
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    # Santa and Mrs. Claus are lost with their styles: a third of every style's pictures is left.
    assert numbers(result) == {"ua": (0, 1), "ira": (1, 0.5), "cra": (1, pytest.approx(1 / 3))}
    assert {row["concept"]: row["edited"] for row in result.tables["own"]} == {"mrs claus": 0, "cat": 1}
    assert [row["concept"] for row in result.tables["cross"]] == ["noto", "flat", "twemoji"]
    assert result.tables["grid"] == [{"objects": 3, "styles": 3, "seeds": [0, 1], "pictures": 18}]
    assert [(result.figures[name].n, result.figures[name].judge) for name in ("ua", "ira", "cra")] == [
        (6, "objects"), (2, "objects"), (3, "styles"),
    ]  # fmt: skip


def test_how_often_the_judge_of_ua_errs_is_counted_on_the_unedited_grid(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("claus"))
    learn(monkeypatch, SUITE, scene)
    known = scene.judges.object.known
    mine = [key for key, name in known.items() if name == "santa claus"]
    cats = [key for key, name in known.items() if name == "cat"]
    known[mine[0]], known[cats[0]], known[cats[1]] = "cat", "Santa Claus", "Santa Claus"
    errors = SUITE.run(scene).calibration
    assert (errors.judge, errors.target) == ("objects", "santa claus")
    assert (errors.false_negative.value, errors.false_negative.n) == (1 / 6, 6)
    assert (errors.false_positive.value, errors.false_positive.n) == (2 / 12, 12)


def test_prompts_that_the_unedited_model_fails_on_are_reported_and_left_out_on_request(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("claus"))
    learn(monkeypatch, SUITE, scene)
    known = scene.judges.object.known
    mine = [key for key, name in known.items() if name == "santa claus"]
    for key in mine:  # all of one style: both of its pictures
        if scene.judges.style.known[key] == "noto":
            known[key] = "cat"
    counted, left_out = SUITE.run(scene), SUITE.model_copy(update={"effective_only": True}).run(scene)
    assert numbers(counted)["ua"] == (pytest.approx(1 / 3), 1)
    assert (numbers(left_out)["ua"], left_out.figures["ua"].n) == ((0, 1), 4)
    assert "only" in left_out.figures["ua"].protocol
    assert counted.tables["ineffective"] == left_out.tables["ineffective"]
    assert counted.tables["ineffective"] == [{"prompt": "santa claus in noto style", "shown": 0.0}]
    assert "1 of 3 prompts do not show the target on the unedited model either" in " ".join(counted.warnings)
    assert numbers(counted)["ira"] == numbers(left_out)["ira"]


def test_with_no_prompt_left_ua_is_not_measured(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("claus"))
    learn(monkeypatch, SUITE, scene)
    for key, name in list(scene.judges.object.known.items()):
        scene.judges.object.known[key] = "cat" if name == "santa claus" else name
    result = SUITE.model_copy(update={"effective_only": True}).run(scene)
    assert set(result.figures) == {"ira", "cra"}
    assert any(line.startswith("not measured: UA") for line in result.warnings)


def test_a_style_and_the_targets_own_pictures_in_cra(tiny_backbone, monkeypatch):
    scene = scene_of(tiny_backbone, edit=WordEdit("noto"), concept=NOTO)
    learn(monkeypatch, SUITE, scene)
    result = SUITE.run(scene)
    assert numbers(result) == {"ua": (0, 1), "ira": (1, 1), "cra": (1, pytest.approx(2 / 3))}
    without = SUITE.model_copy(update={"target_in_cross": False}).run(scene)
    assert numbers(without)["cra"] == (1, 1)
    assert "with the target's pictures" in result.figures["cra"].protocol
    assert "without the target's pictures" in without.figures["cra"].protocol


def test_another_way_of_counting_draws_nothing(tiny_backbone, monkeypatch, tmp_path):
    scene = scene_of(tiny_backbone, edit=WordEdit("noto"), concept=NOTO, cache=tmp_path)
    with counting(monkeypatch) as drawn:
        SUITE.run(scene)
    assert sum(drawn) == 36
    with counting(monkeypatch) as again:
        SUITE.model_copy(update={"target_in_cross": False}).run(scene)
    assert again == []


def test_the_unedited_grid_is_the_same_for_most_targets(tiny_backbone, monkeypatch, tmp_path):
    suite = Canvas(objects=4, seeds=(0,))
    first = scene_of(tiny_backbone, concept=Concept("cat"), cache=tmp_path)
    objects = {image.object for image in learn(monkeypatch, suite, first)}
    outside = next(name for name in first.judges.object.classes if name not in objects)
    with counting(monkeypatch) as drawn:
        suite.run(scene_of(tiny_backbone, concept=Concept(outside), cache=tmp_path))
    assert sum(drawn) == 3, "one object gave way to the target, in three styles"


class TestUnlearnCanvas:
    """unlearncanvas: names, prompts, seeds and quirks of the original."""

    def test_names_prompts_and_seeds(self):
        loaded = load_suite("canvas-unlearncanvas")
        suite = loaded.suite
        plan = suite._plan(list(suite.objects), list(suite.styles))
        assert len(plan) == 5100
        assert len({(image.prompt, image.seed) for image in plan}) == 5100
        assert (len(suite.styles), len(suite.objects), suite.seeds) == (51, 20, (188, 288, 588, 688, 888))
        assert loaded.settings == {"steps": 100, "guidance": 9.0}
        prompts = {image.prompt for image in plan}
        assert "A Cats image in Van Gogh style." in prompts
        assert "A Trees image in Seed Images style." in prompts, "as its samplers ask, though training never did"

    def test_the_prompt_of_seed_images_as_in_training(self):
        suite = load_suite("canvas-unlearncanvas").suite
        trained = suite.model_copy(update={"photo_prompt": "A {object} image in Photo style."})
        prompts = {image.style: image.prompt for image in trained._plan(["Trees"], suite.styles)}
        assert prompts["Seed_Images"] == "A Trees image in Photo style."
        assert prompts["Rust"] == "A Trees image in Rust style."

    @pytest.mark.parametrize(("counted", "others", "accuracy"), [(False, 49, 1.0), (True, 50, 0.98)])
    def test_49_or_50_other_styles(self, tiny_backbone, monkeypatch, tmp_path, counted, others, accuracy):
        suite = load_suite("canvas-unlearncanvas").suite
        suite = suite.model_copy(update={"objects": ("Cats",), "seeds": (188,), "photo_counted": counted})
        target = Concept("van gogh", kind="style")
        scene = scene_of(tiny_backbone, concept=target, objects=("Cats",), styles=suite.styles, cache=tmp_path)
        learn(monkeypatch, suite, scene)
        for picture, name in scene.judges.style.known.items():
            scene.judges.style.known[picture] = None if name == "Seed_Images" else name
        figures = suite.run(scene).figures
        assert figures["ira"].n == others
        assert figures["ira"].value == pytest.approx(accuracy)
        assert figures["ua"].value == 0, "'van gogh' and 'Van_Gogh' are one style"
        assert f"Seed_Images {'counted' if counted else 'not counted'}" in figures["ira"].protocol

    def test_judges_may_spell_with_spaces(self, tiny_backbone, monkeypatch):
        suite = Canvas(objects=("Cats",), styles=("Van_Gogh", "Rust"), seeds=(0,))
        scene = scene_of(
            tiny_backbone, concept=Concept("Rust", kind="style"), objects=("cats",), styles=("rust", "van gogh")
        )
        for image in learn(monkeypatch, suite, scene):
            assert "_" not in image.prompt
        for judge in (scene.judges.object, scene.judges.style):
            judge.known = {key: name.replace("_", " ").lower() for key, name in judge.known.items()}
        assert numbers(suite.run(scene)) == {"ua": (0, 0), "ira": (1, 1), "cra": (1, 1)}


class TestBadInput:
    @pytest.mark.parametrize(
        ("fields", "wanted"),
        [
            ({"objects": ("cat", "Cat")}, "objects: got 'cat' more than once"),
            ({"seeds": (1, 1)}, "seeds: got 1 more than once"),
            ({"objects": ("cat", "dog")}, "'santa claus' is none of its 2 objects"),
            ({"photo": "Seed_Images"}, "photo: got 'Seed_Images', which is none of its styles"),
            ({"styles": ("noto", "blob")}, "styles has 3 classes, none of them 'blob'"),
            ({"objects": ("santa claus", "unicorn")}, "objects has 11 classes, none of them 'unicorn'"),
        ],
    )
    def test_one_line(self, tiny_backbone, monkeypatch, fields, wanted):
        with counting(monkeypatch) as drawn, pytest.raises(InputError, match=wanted):
            Canvas(**fields).run(scene_of(tiny_backbone))
        assert drawn == []

    def test_a_prompt_without_its_fields(self):
        with pytest.raises(ValidationError, match="wanted a prompt with"):
            Canvas(prompt="a {object}")


@pytest.mark.parametrize(
    ("lacking", "concept", "wanted"),
    [
        (
            "style",
            SANTA,
            "no style judge; --judge gives one of objects, the target's kind: name a folder as 'style' under",
        ),
        (
            "object",
            NOTO,
            "no object judge; --judge gives one of styles, the target's kind: name a folder as 'object' und",
        ),
        ("object", SANTA, "no object judge; give one with --judge, or a CLIP folder with --clip"),
    ],
)
def test_a_missing_judge_is_told_with_what_gives_it(tiny_backbone, monkeypatch, lacking, concept, wanted):
    """--judge takes the place of the target's kind alone: to name it for the other one led nowhere."""
    scene = scene_of(tiny_backbone, concept=concept)
    scene = dataclasses.replace(scene, judges=dataclasses.replace(scene.judges, **{lacking: None}))
    with counting(monkeypatch) as drawn, pytest.raises(InputError, match=wanted):
        SUITE.run(scene)
    assert drawn == []
