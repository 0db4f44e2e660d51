"""Whether an attack's result is there already: asked by the command line and by benches in one place."""

import dataclasses
from pathlib import Path

import pytest

from aizheimer.attacks.quantise import Quantise
from aizheimer.attacks.relearn import Relearn
from aizheimer.attacks.results import AttackResult
from aizheimer.attacks.resume import asked_of, finished
from tests.unit.edits.test_edit import edit_of
from tests.unit.evaluation.builders import MemoryJudge
from tests.unit.proof.builders import attack as result_of


@pytest.fixture
def kept(plain, tmp_path):
    """Keep a result of an attack on an edit; return how it is asked for again, and what was said."""
    edited = dataclasses.replace(plain, edit=edit_of(plain.backbone.pipe))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"one")
    attack, said, file = Relearn(folder=pictures), [], tmp_path / "attack-relearn.json"
    result = result_of(**asked_of(attack, edited))
    result.save(file)

    def again(attack=attack, *, controls=True, **changes):
        subject = dataclasses.replace(edited, **changes)
        found = finished(file, attack, subject=subject, controls=controls, say=said.append)
        assert found is None or found == AttackResult.load(file)
        return found is not None

    return again, said, file, pictures, result


def test_the_same_attack_is_there_and_nothing_is_said(kept):
    again, said, _, _, _ = kept
    assert again()
    assert said == []


def test_other_pictures_in_the_folder_are_another_attack(kept):
    again, said, _, pictures, _ = kept
    (pictures / "a.png").write_bytes(b"two")
    assert not again()
    assert said[0].startswith("attack-relearn.json is measured again: content of folder was ")
    assert "\n" not in said[0]


def test_other_parameters_seed_edit_judge_or_attack(kept, plain):
    again, said, _, pictures, _ = kept
    assert not again(Relearn(folder=pictures, steps=9))
    assert not again(settings=plain.settings.model_copy(update={"seed": 4}))
    assert not again(edit=edit_of(plain.backbone.pipe, seed=7))
    assert not again(judge=MemoryJudge(("Santa Claus", "dog")))
    assert not again(Quantise())
    reasons = [line.split("measured again: ")[1] for line in said]
    wanted = [
        "parameters.steps was 40 and is 9",
        "settings.seed was 0 and is 4",
        "edit was ",
        "classes of the judge was ",
    ]
    assert [reason.startswith(text) for reason, text in zip(reasons, wanted, strict=False)] == [True] * 4
    assert reasons[4].startswith("attack was 'relearn' and is 'quantise'")


def test_other_weights_under_the_same_name_are_another_judge(kept, plain):
    again, said, file, _, result = kept
    asked = {"judge": plain.judge.with_weights("b" * 16)}
    assert not again(**asked), "a file that does not say which weights judged"
    weighed = {**result.made_from, "weights of the judge": "a" * 16}
    result.model_copy(update={"made_from": weighed}).save(file)
    assert not again(**asked)
    assert said[1].endswith(f"weights of the judge was '{'a' * 16}' and is '{'b' * 16}'")
    assert again(judge=plain.judge.with_weights("a" * 16))


def test_a_result_without_controls_answers_only_who_asks_for_none(kept):
    again, said, file, _, result = kept
    result.model_copy(update={"unedited": None}).save(file)
    assert not again()
    assert said == ["attack-relearn.json is measured again: it was made without its controls"]


def test_a_result_with_one_control_answers_who_asks_for_that_one(kept):
    again, said, file, _, result = kept
    result.model_copy(update={"controls": "unedited"}).save(file)
    assert not again()
    assert said == ["attack-relearn.json is measured again: it was made without its random control"]
    assert again(controls="unedited")
    assert again(controls=False)


def test_a_file_of_before_digests_were_kept_is_measured_again(kept):
    again, said, file, _, result = kept
    result.model_copy(update={"made_from": {}}).save(Path(file))
    assert not again()
    assert "does not say what it was made from" in said[0]
