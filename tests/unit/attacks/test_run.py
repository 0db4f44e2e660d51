"""An attack's rate, the rate before it, the controls, and the pipeline as it was."""

import dataclasses
import re
import shutil
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from aizheimer._registry import ATTACKS
from aizheimer.attacks import _drawing
from aizheimer.attacks.base import Attack, AttackInfo, AttackSettings, NotApplicable, Outcome, Subject
from aizheimer.attacks.results import AttackResult
from aizheimer.attacks.run import judge_for, run_attack
from aizheimer.attacks.seed_search import SeedSearch
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.neighbours import nearest
from aizheimer.errors import DataError, InputError
from aizheimer.evaluation import generate as generating
from tests.unit.edits.test_edit import bits, edit_of, same
from tests.unit.evaluation.builders import MemoryJudge

SANTA = Concept("Santa Claus")
SETTINGS = AttackSettings(images=4, steps=2)
NAMES = ("Santa Claus", "cat")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def subject(tiny_backbone):
    edit = edit_of(tiny_backbone.pipe)
    return Subject(backbone=tiny_backbone, edit=edit, concept=SANTA, judge=MemoryJudge(NAMES), settings=SETTINGS)


class Undo(BaseModel):
    """Takes the edit off and draws: it must bring back what the unedited model draws."""

    name: ClassVar[str] = "undo"
    info: ClassVar[AttackInfo] = AttackInfo(paper="a test", access="white box", changes="the weights")

    def attack(self, subject, *, progress=None):
        if subject.random:
            raise NotApplicable("undo: nothing is random")
        with subject.unedited():
            images = subject.draw(subject.jobs)
        return Outcome(images=images, steps=3, queries=1, details={"how": "undone"})


class UndoNear(Undo):
    """Says that it leaves the words as they are."""

    info: ClassVar[AttackInfo] = dataclasses.replace(Undo.info, near_words=True)


def run(subject, attack=None, **options):
    return run_attack(
        attack or Undo(), backbone=subject.backbone, edit=subject.edit, concept=SANTA, judge=subject.judge,
        settings=SETTINGS, **options,
    )  # fmt: skip


def knows_the_unedited(subject):
    subject.judge.learn(subject.draw(subject.jobs), ["Santa Claus"] * SETTINGS.images)


class TestRates:
    def test_before_with_it_and_on_the_unedited_model(self, subject):
        knows_the_unedited(subject)
        found = run(subject).result
        assert (found.before.value, found.alone.value, found.asr.value) == (0, 1, 1)
        assert (found.unedited.value, found.unedited_before.value, found.random) == (1, 1, None)
        assert found.spent.steps == 3
        assert found.spent.queries == 1
        # Two passes a picture and step, for guidance; the controls do not count.
        assert found.spent.denoiser_evaluations == 2 * SETTINGS.images * SETTINGS.steps
        assert found.warnings == []

    def test_a_picture_counts_once_with_or_without_the_attack(self, subject):
        with subject.edit.applied(subject.backbone.pipe):
            before = subject.draw(subject.jobs)
        subject.judge.learn(before[:2], ["Santa Claus"] * 2)
        subject.judge.learn(subject.draw(subject.jobs)[1:3], ["Santa Claus"] * 2)
        found = run(subject).result
        assert (found.before.value, found.alone.value, found.asr.value) == (0.5, 0.5, 0.75)
        answers = found.answers
        assert (answers.before, answers.alone) == ([True, True, False, False], [False, True, True, False])
        assert answers.either.tolist() == [True, True, True, False]
        assert answers.original == answers.alone, "this attack draws what the unedited model draws"

    def test_one_that_fails_on_the_unedited_model_says_so(self, subject):
        found = run(subject).result
        assert found.unedited.value == 0
        assert found.warnings == ["undo reaches only 0% on the unedited model: its failure says nothing of the edit"]

    def test_the_unedited_model_has_no_control_of_itself(self, subject):
        knows_the_unedited(subject)
        found = run_attack(
            Undo(), backbone=subject.backbone, edit=None, concept=SANTA, judge=subject.judge, settings=SETTINGS
        ).result
        assert found.unedited is None
        assert found.before.value == 1

    def test_the_unedited_model_is_attacked_once_for_all_edits(self, subject, tmp_path, monkeypatch):
        knows_the_unedited(subject)
        attacked = []
        original = Undo.attack
        monkeypatch.setattr(
            Undo, "attack", lambda own, of, **options: attacked.append(of.edit) or original(own, of, **options)
        )
        first = run(subject).result
        other = dataclasses.replace(subject, edit=edit_of(subject.backbone.pipe, seed=3))
        second = run(other, controls="unedited").result
        assert second.unedited == first.unedited
        assert attacked.count(None) == 1
        (kept,) = (tmp_path / "cache" / "controls").iterdir()
        kept.write_text("{")
        assert run(subject).result.unedited == first.unedited
        assert attacked.count(None) == 2

    def test_a_judge_of_other_weights_measures_the_unedited_model_itself(self, subject, tmp_path):
        """Two judges of one name and the same classes shared a rate that was kept."""
        knows_the_unedited(subject)
        found = [
            run(dataclasses.replace(subject, judge=judge)).result
            for judge in (subject.judge.with_weights("a" * 16), MemoryJudge(NAMES).with_weights("b" * 16))
        ]
        assert [result.unedited.value for result in found] == [1, 0]
        assert found[0].made_from["weights of the judge"] == "a" * 16

    def test_the_unedited_model_alone(self, subject, monkeypatch):
        monkeypatch.setattr(SeedSearch, "attack", Undo.attack)
        found = run(subject, SeedSearch(), controls="unedited").result
        assert found.unedited is not None
        assert (found.random, found.controls) == (None, "unedited")

    def test_a_neighbour_is_asked_for_in_the_targets_place_on_the_unedited_model(self, subject, tmp_path):
        """What brings the target out of its neighbour there is not the edit's to prevent."""
        found = run(subject, UndoNear()).result
        assert (found.neighbour.value, found.neighbour.n) == (0, SETTINGS.images)
        near = found.neighbour_words
        others = [label for label in subject.backbone.world.labels("object") if label.casefold() != "santa claus"]
        assert near == nearest("Santa Claus", others, subject.backbone.embed_concepts, 1)[0][0]
        shutil.rmtree(tmp_path / "cache")
        asked = dataclasses.replace(subject, instead=near)
        swapped = [re.sub("santa claus", near, job.prompt, flags=re.IGNORECASE) for job in subject.jobs]
        assert [job.prompt for job in asked.jobs] == swapped
        knows_the_unedited(subject)
        knows_the_unedited(asked)
        found = run(subject, UndoNear(), controls="unedited").result
        assert (found.alone.value, found.neighbour.value, found.unedited.value) == (1, 1, 1)
        assert found.warnings == [
            f"undo brings the target out of '{near}' on the unedited model (100%): its success says nothing of the edit"
        ]

    def test_an_attack_on_other_words_has_no_neighbour(self, subject):
        found = run(subject).result
        assert (found.neighbour, found.neighbour_words) == (None, "")

    def test_the_pipeline_is_as_it_was(self, subject):
        before = bits(subject.backbone.pipe)
        run(subject)
        assert same(before, bits(subject.backbone.pipe))


def test_lifting_an_edit_and_putting_it_back_is_exact(subject):
    pipe = subject.backbone.pipe
    before, second = bits(pipe), edit_of(pipe, seed=1)
    with subject.edit.applied(pipe), second.applied(pipe):
        edited = bits(pipe)
        with subject.unedited():
            assert same(before, bits(pipe))
        assert same(edited, bits(pipe))
        assert not same(edited, before)
    assert same(before, bits(pipe))


class TestSeedSearch:
    def test_it_stops_at_the_first_success_of_each_prompt(self, subject, monkeypatch):
        drawn = []
        monkeypatch.setattr(Subject, "shows", lambda self, images: drawn.append(len(images)) or hits.pop(0))
        hits = [np.array([True, False, False, True]), np.array([False, True])]
        found = SeedSearch(tries=2).attack(subject)
        assert drawn == [4, 2]
        assert found.queries == 6
        assert found.details["tries_to_success"] == [1, None, 2, 1]

    @pytest.mark.long
    def test_other_seeds_draw_other_pictures_and_the_same_twice(self, subject):
        first, again = (SeedSearch(tries=1).attack(subject).images for _ in range(2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, subject.draw(subject.jobs))

    def test_it_is_its_own_control(self, subject):
        import dataclasses

        with pytest.raises(NotApplicable, match="random already"):
            SeedSearch().attack(dataclasses.replace(subject, random=True))


def test_results_survive_the_disk_and_other_files_are_refused(subject, tmp_path):
    found = run(subject).result
    found.save(tmp_path / "undo.json")
    assert AttackResult.load(tmp_path / "undo.json") == found
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="not an attack's result"):
        AttackResult.load(tmp_path / "other.json")
    with pytest.raises(DataError, match="run `aizheimer attack` first"):
        AttackResult.load(tmp_path / "none.json")


def test_a_judge_that_is_blind_or_missing(tiny_backbone):
    with pytest.raises(InputError, match="no class 'Santa Claus', so no attack could succeed"):
        run_attack(
            Undo(), backbone=tiny_backbone, edit=None, concept=SANTA, judge=MemoryJudge(("cat",)), settings=SETTINGS
        )
    with pytest.raises(InputError, match="no style judge"):
        judge_for(Concept("noto", kind="style"), object_judge=MemoryJudge(NAMES), style_judge=None)


@pytest.mark.parametrize("name", ["soft-prompt", "img2img", "inpaint", "noise-inversion"])
def test_from_a_neighbours_words_it_is_still_the_target_that_is_wanted_back(name, tiny_backbone, monkeypatch):
    """Pictures that an attack is given are of the target; what it draws is drawn from the neighbour's words."""
    given, drawn, batch = [], [], generating.draw_batch
    kind = ATTACKS.get(name)
    plain = Subject(
        backbone=tiny_backbone, edit=None, concept=SANTA, judge=MemoryJudge(NAMES), settings=SETTINGS, instead="cat"
    )
    for module in (generating, _drawing):
        monkeypatch.setattr(
            module, "draw_batch", lambda pipe, jobs, **how: drawn.append([*jobs]) or batch(pipe, jobs, **how)
        )
    draw = Subject.draw
    monkeypatch.setattr(Subject, "draw", lambda own, jobs, **how: given.append([*jobs]) or draw(own, jobs, **how))
    assert kind.info.near_words
    outcome = kind(**{"steps": 1} if name == "soft-prompt" else {}).attack(plain)
    assert len(outcome.images) == len(plain.jobs) == SETTINGS.images
    assert all("Santa Claus" in job.prompt for job in given[0])
    after = [job.prompt for jobs in drawn for job in jobs][len(given[0]) :]
    assert any(prompt.startswith("cat in") for prompt in after)
    assert not any("Santa Claus" in prompt for prompt in after)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_registered_attack_is_one(name):
    kind = ATTACKS.get(name)
    assert kind.name == name
    assert isinstance(kind(), Attack)
    assert isinstance(kind.info, AttackInfo)
    assert kind.model_validate(kind().model_dump(mode="json")) == kind()
    assert torch.is_grad_enabled()
