"""UA by family: a forgetter of one word is found out, and what cannot be asked is not counted."""

import dataclasses

import pytest
from pydantic import ValidationError

from aizheimer.concepts.families import NAMES
from aizheimer.errors import InputError
from aizheimer.evaluation.evaluate import evaluate
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.evaluation.suites import families
from aizheimer.evaluation.suites.families import Families
from aizheimer.reports.suite_tables import suite_tables
from tests.unit.evaluation.builders import WordEdit
from tests.unit.evaluation.suites.scenes import NOTO, SETTINGS, counting, learn, numbers, scene_of


@pytest.fixture
def word_edit_result(tiny_backbone, monkeypatch):
    suite = Families(images=3)
    scene = scene_of(tiny_backbone, edit=WordEdit("santa"))
    learn(monkeypatch, suite, scene)
    return suite.run(scene)


class TestAForgetterOfOneWord:
    def test_is_defeated_where_the_word_is_written_otherwise(self, word_edit_result):
        found = numbers(word_edit_result)
        assert found["ua.name"] == found["ua.templates"] == found["ua.scenes"] == (0, 1)
        assert found["ua.misspellings"] == (0, 0)
        assert found["ua.synonyms"][1] == pytest.approx(2 / 3), "'claus' alone still draws it"

    def test_the_worst_family_is_named(self, word_edit_result):
        assert word_edit_result.tables["worst"] == [{"family": "misspellings", "ua": 0.0, "unedited": 0.0}]
        worst = word_edit_result.figures["ua.worst"]
        assert worst.value == 0
        assert "'misspellings'" in worst.protocol
        assert "smallest accuracy of 7" in worst.protocol

    def test_what_the_world_has_no_words_for_is_missing_and_not_0(self, word_edit_result):
        assert "ua.languages" not in word_edit_result.figures
        assert "ua.indirect" not in word_edit_result.figures
        rows = {row["family"]: row for row in word_edit_result.tables["families"]}
        assert set(rows) == set(NAMES)
        assert not rows["languages"]["available"]
        assert any(line.startswith("not available: languages") for line in word_edit_result.warnings)

    def test_negation_counts_the_other_way_and_is_no_family_of_ua(self, word_edit_result):
        assert numbers(word_edit_result)["shown.negation"] == (1, 0)
        assert "ua.negation" not in word_edit_result.figures

    def test_every_figure_says_how_it_was_made(self, word_edit_result, tmp_path):
        for metric in word_edit_result.figures.values():
            assert (metric.n, metric.judge) == (3, "objects")
            assert metric.protocol
        word_edit_result.save(tmp_path / "suite.json")
        assert SuiteResult.load(tmp_path / "suite.json") == word_edit_result


class TestTheJudgesErrors:
    SMALL = SETTINGS.model_copy(update={"target_images": 4, "neighbours": 2, "neighbour_images": 1, "others": 2})

    def test_are_counted_on_the_pictures_of_an_evaluation(self, tiny_backbone, monkeypatch, tmp_path):
        """Not on a family's own: that a misspelling shows no target is no mistake of the judge's."""
        scene = scene_of(tiny_backbone, edit=WordEdit("santa"), cache=tmp_path, settings=self.SMALL)
        options = {"concept": scene.concept, "judges": scene.judges, "settings": self.SMALL, "cache_dir": tmp_path}
        plan = evaluate(tiny_backbone.pipe, None, **options).images
        drawn = dataclasses.replace(scene, edit=None).pairs(plan).original
        names = [image.object for image in plan]
        names[0] = names[1] = "cat"
        scene.judges.object.learn(drawn, names)
        suite = Families(images=2, families=("misspellings",))
        with counting(monkeypatch) as counted:
            found = suite.run(scene)
        assert sum(counted) == 4, "two pictures of the family by each model; the evaluation's are there already"
        assert found.figures["ua.misspellings"].original == 1
        errors = found.calibration
        assert (errors.false_negative.value, errors.false_negative.n) == (0.5, 4)
        assert (errors.false_positive.value, errors.false_positive.n) == (0, len(plan) - 4)
        (table, *_) = suite_tables(found)
        assert "… judge misses the target" in list(table.columns[0].cells)
        found.save(tmp_path / "suite.json")
        assert SuiteResult.load(tmp_path / "suite.json") == found

    def test_are_left_out_where_the_world_has_no_prompts_of_its_own(self, tiny_backbone, monkeypatch):
        def refuse(*_, **__):
            raise InputError("no object_templates")

        monkeypatch.setattr(families, "planned", refuse)
        suite = Families(images=1, families=("name",))
        assert suite.run(scene_of(tiny_backbone)).calibration is None


class TestPromptsThatDoNotWork:
    @pytest.fixture
    def scene(self, tiny_backbone, monkeypatch):
        """The judge has learned the templates alone: the unedited model shows the target nowhere else."""
        scene = scene_of(tiny_backbone, edit=WordEdit("santa"))
        learn(monkeypatch, Families(images=3, families=("templates",)), scene)
        return scene

    def test_they_are_counted_and_reported(self, scene):
        result = Families(images=3, families=("templates", "misspellings")).run(scene)
        assert numbers(result)["ua.misspellings"] == (1, 1), "forgotten, but never known"
        ineffective = result.tables["ineffective"]
        assert {row["family"] for row in ineffective} == {"misspellings"}
        assert all(row["shown"] == 0 for row in ineffective)
        assert any("3 of 6 prompts do not show" in line and "counted" in line for line in result.warnings)

    def test_and_left_out_on_request(self, scene):
        result = Families(images=3, families=("templates", "misspellings"), effective_only=True).run(scene)
        assert "ua.misspellings" not in result.figures
        assert numbers(result)["ua.templates"] == (0, 1)
        assert result.tables["worst"][0]["family"] == "templates"
        assert any("none of its prompts is effective" in line for line in result.warnings)
        assert "shows it on only" in result.figures["ua.templates"].protocol

    def test_a_prompt_is_judged_over_its_seeds(self, tiny_backbone, monkeypatch):
        suite = Families(images=4, families=("name",), effective_only=True)
        scene = scene_of(tiny_backbone, edit=WordEdit("santa"))
        learn(monkeypatch, suite, scene)
        known = scene.judges.object.known
        for key in list(known)[:2]:
            del known[key]
        assert suite.run(scene).figures["ua.name"].original == 0.5
        del known[next(iter(known))]
        assert suite.run(scene).figures == {}


def test_own_prompts_are_families_too(tiny_backbone, monkeypatch):
    suite = Families(images=2, families=("name",), prompts={"hats": ("old man", "a red santa")})
    scene = scene_of(tiny_backbone, edit=WordEdit("santa"))
    learn(monkeypatch, suite, scene)
    assert numbers(suite.run(scene))["ua.hats"] == (0, 0.5)


def test_a_style(tiny_backbone, monkeypatch):
    suite = Families(images=3, families=("templates", "homoglyphs"))
    scene = scene_of(tiny_backbone, edit=WordEdit("noto"), concept=NOTO)
    learn(monkeypatch, suite, scene)
    result = suite.run(scene)
    assert numbers(result)["ua.templates"] == (0, 1)
    assert numbers(result)["ua.homoglyphs"] == (0, 0)
    assert result.figures["ua.templates"].judge == "styles"


class TestBadInput:
    @pytest.mark.parametrize(
        ("fields", "wanted"),
        [
            ({"prompts": {"mine": ("a cat", "a dog", "a cat ")}}, r"prompts.mine: got 'a cat' more than once"),
            ({"families": ("name", "name")}, "families: got 'name' more than once"),
            ({"families": ("languages",)}, "languages: the world has no names"),
        ],
    )
    def test_one_line(self, tiny_backbone, fields, wanted):
        with pytest.raises(InputError, match=wanted) as caught:
            Families(**{"families": ("name",), **fields}).run(scene_of(tiny_backbone))
        assert "\n" not in str(caught.value)

    def test_a_judge_of_other_classes(self, tiny_backbone):
        with pytest.raises(InputError, match="objects has 2 classes, none of them 'santa claus'") as caught:
            Families().run(scene_of(tiny_backbone, objects=("cat", "santa clause")))
        assert "Did you mean 'santa clause'" in str(caught.value)

    @pytest.mark.parametrize(
        "fields", [{"families": ("synonym",)}, {"prompts": {"name": ("x",)}}, {"prompts": {"mine": ()}}, {"image": 3}]
    )
    def test_parameters(self, fields):
        with pytest.raises(ValidationError):
            Families(**fields)

    def test_no_judge(self, tiny_backbone):
        scene = scene_of(tiny_backbone)
        scene = dataclasses.replace(scene, judges=dataclasses.replace(scene.judges, object=None))
        with pytest.raises(InputError, match="no object judge"):
            Families().run(scene)
