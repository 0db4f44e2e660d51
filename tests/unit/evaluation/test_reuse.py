"""A result stands for a measurement only if it was made from the very same things."""

from dataclasses import replace
from pathlib import Path

import pytest

from aizheimer.evaluation.reuse import contents_of, found_before, why_again
from aizheimer.evaluation.suite import SuiteResult, asked_of
from aizheimer.evaluation.suites.families import Families
from tests.unit.edits.test_edit import edit_of
from tests.unit.evaluation.builders import WordEdit
from tests.unit.evaluation.suites.scenes import scene_of

SUITE = Families(images=2)


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png"):
        (pictures / name).write_bytes(name.encode())
    return pictures


class TestContents:
    def changed_by(self, folder, change):
        before = contents_of({"folder": folder})
        change()
        return contents_of({"folder": folder}) != before

    def test_whatever_is_in_a_folder_counts(self, folder):
        assert self.changed_by(folder, lambda: (folder / "a.png").write_bytes(b"other"))
        assert self.changed_by(folder, lambda: (folder / "a.png").rename(folder / "z.png"))
        assert self.changed_by(folder, lambda: (folder / "more" / "b.png").unlink())
        assert not self.changed_by(folder, lambda: (folder / ".hidden").write_bytes(b"x"))

    def test_of_a_run_folder_the_edit_counts_and_not_what_was_found_about_it(self, tiny_pipeline, tmp_path):
        run = edit_of(tiny_pipeline).save(tmp_path / "run")
        assert not self.changed_by(run, lambda: (run / "evaluation.json").write_text("{}"))
        assert self.changed_by(run, lambda: edit_of(tiny_pipeline, seed=7).save(run))

    def test_paths_are_found_where_they_are_and_words_are_none(self, tmp_path):
        (tmp_path / "recipe.yaml").write_text("x")
        values = {"deep": {"at": Path("/not/there")}, "method": str(tmp_path / "recipe.yaml"), "concept": "cat"}
        assert list(contents_of(values)) == ["content of deep.at", "content of method"]


class TestWhyAgain:
    @pytest.fixture
    def made(self, tiny_backbone):
        scene = scene_of(tiny_backbone, edit=edit_of(tiny_backbone.pipe))
        return scene, SuiteResult.of(SUITE, scene, {})

    def test_the_same_is_the_same_and_the_batch_changes_nothing(self, made):
        scene, result = made
        asked = asked_of(SUITE, scene)
        assert why_again(result, asked) == ""
        assert why_again(result, asked | {"settings": asked["settings"] | {"batch_size": 1}}) == ""

    def test_it_names_what_differs_with_both_values(self, made, tiny_backbone):
        scene, result = made
        more = asked_of(Families(images=3), scene)
        assert why_again(result, more) == "parameters.images was 2 and is 3"
        seed = asked_of(SUITE, scene)
        seed["settings"]["seed"] = 5
        assert why_again(result, seed) == "settings.seed was 0 and is 5"
        other = asked_of(SUITE, scene_of(tiny_backbone, edit=edit_of(tiny_backbone.pipe, seed=7)))
        assert why_again(result, other).startswith("edit was ")
        judges = asked_of(SUITE, scene_of(tiny_backbone, edit=scene.edit, objects=("santa claus", "cat")))
        assert why_again(result, judges).startswith("judges was ")

    def test_other_weights_under_the_same_name_are_another_judge(self, made):
        scene, _ = made
        first, second = (
            replace(scene, judges=replace(scene.judges, object=scene.judges.object.with_weights(weights)))
            for weights in ("a" * 16, "b" * 16)
        )
        reason = why_again(SuiteResult.of(SUITE, first, {}), asked_of(SUITE, second))
        assert reason == f"weights of the object judge was '{'a' * 16}' and is '{'b' * 16}'"

    def test_files_of_before_and_edits_without_a_name_are_never_the_same(self, made, tiny_backbone):
        scene, result = made
        old = result.model_copy(update={"made_from": {}})
        assert why_again(old, asked_of(SUITE, scene)) == "its file does not say what it was made from"
        nameless = scene_of(tiny_backbone, edit=WordEdit("santa"))
        assert why_again(SuiteResult.of(SUITE, nameless, {}), asked_of(SUITE, nameless)) == "nothing names its edit"

    def test_a_damaged_file_is_no_result_and_that_is_said(self, made, tmp_path):
        scene, result = made
        said = []
        options = {"asked": lambda: asked_of(SUITE, scene), "say": said.append}
        file = tmp_path / "suite-families.json"
        assert found_before(file, SuiteResult.load, **options) is None
        result.save(file)
        assert found_before(file, SuiteResult.load, **options) == result
        assert said == []
        file.write_text("{")
        assert found_before(file, SuiteResult.load, **options) is None
        assert "not a suite's result" in said[0]
