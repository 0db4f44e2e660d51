"""Image rates and class counts, unedited beside edited, on detections that are known; then NudeNet itself."""

import numpy as np
import pytest

from aizheimer._registry import SUITES
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.nudenet import CLASSES, NudityJudge, nudity_profile
from aizheimer.errors import DataError, InputError, JudgeError
from aizheimer.evaluation.evaluate import ImagePairs
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.suite import Scene, Suite, SuiteResult
from aizheimer.evaluation.suites.safety import NEUTRAL_PROMPTS, Safety, read_prompts
from tests.unit.detectors.finders import MemoryDetector
from tests.unit.evaluation.builders import SMALL, WordEdit

PROMPTS = ("a photo of santa", "a dog", "a photo of santa claus", "an old man")


@pytest.fixture
def scene(tiny_backbone, tmp_path):
    return Scene(
        backbone=tiny_backbone, edit=WordEdit("santa"), concept=Concept("nudity"), judges=Judges(), settings=SMALL,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip


def judge_that_knows(scene, plan, things, *, profile="unlearndiffatk"):
    detector = MemoryDetector(CLASSES)
    detector.learn(scene.pairs(plan).original, things)
    return NudityJudge(detector, nudity_profile(profile))


THINGS = [
    [("FEET_EXPOSED", 0.9), ("FEET_EXPOSED", 0.7), ("BELLY_EXPOSED", 0.3)],
    [("FACE_FEMALE", 0.9)],
    [("BELLY_EXPOSED", 0.5)],
    [("FEET_EXPOSED", 0.46)],
]


def test_rates_and_counts_by_hand(scene):
    suite = Safety(prompts=PROMPTS)
    plan = suite.plan(first_seed=0)
    found = suite.measure(scene, judge=judge_that_knows(scene, plan, THINGS), plan=plan)
    # The edit redraws both prompts with "santa", in which the detector then finds nothing.
    assert (found.figures["nudity"].original, found.figures["nudity"].value) == (0.75, 0.25)
    assert found.figures["nudity.feet_exposed"].original == 0.5
    assert found.figures["nudity.belly_exposed"].value == 0
    assert found.figures["nudity"].judge == "memory, unlearndiffatk"
    assert found.figures["nudity"].n == 4
    counts = {row["class"]: row for row in found.tables["classes"]}
    assert counts["FEET_EXPOSED"] == {
        "class": "FEET_EXPOSED", "original_images": 2, "original_detections": 3, "edited_images": 1,
        "edited_detections": 1,
    }  # fmt: skip
    assert counts["BELLY_EXPOSED"]["original_detections"] == 1
    assert any("best.onnx" in note for note in found.warnings)
    assert set(found.figures) >= {"broken"}


def drawn(monkeypatch, original, edited):
    """Let every scene draw these pictures, each of one tone."""
    tall = [np.repeat(np.array(tones, np.uint8), 192).reshape(-1, 8, 8, 3) for tones in (original, edited)]
    monkeypatch.setattr(Scene, "pairs", lambda self, plan, progress=None: ImagePairs(*tall))
    return tall


def test_black_pictures_are_not_safe(scene, monkeypatch):
    """A model whose numbers are none draws black, in which no detector finds anything: that is no rate of 0."""
    original, _ = drawn(monkeypatch, (10, 20, 30, 40), (10, 0, 0, 50))
    detector = MemoryDetector(CLASSES)
    detector.learn(original, [[("FEET_EXPOSED", 0.9)]] * 4)
    suite = Safety(prompts=PROMPTS)
    judge, plan = NudityJudge(detector, nudity_profile("unlearndiffatk")), suite.plan(first_seed=0)
    found = suite.measure(scene, judge=judge, plan=plan)
    nudity = found.figures["nudity"]
    assert (nudity.value, nudity.original, nudity.n) == (0.5, 1.0, 2), "a quarter, had the black ones counted as safe"
    assert found.figures["broken"].n == 4
    (warning,) = [line for line in found.warnings if "black to the last pixel" in line]
    assert warning.startswith("2 of 4 pictures with the edit are black")
    assert "they count nowhere as safe" in warning


def test_nothing_but_black_pictures_is_not_measured(scene, monkeypatch):
    drawn(monkeypatch, (10, 20, 30, 40), (0, 0, 0, 0))
    suite = Safety(prompts=PROMPTS)
    judge = NudityJudge(MemoryDetector(CLASSES), nudity_profile("unlearndiffatk"))
    found = suite.measure(scene, judge=judge, plan=suite.plan(first_seed=0))
    assert set(found.figures) == {"broken"}
    assert "not measured: nudity, for there is no picture to look at" in found.warnings
    assert any(line.startswith("4 of 4 pictures") for line in found.warnings)


def test_pictures_that_are_there_have_no_such_warning(scene):
    suite = Safety(prompts=PROMPTS)
    plan = suite.plan(first_seed=0)
    found = suite.measure(scene, judge=judge_that_knows(scene, plan, THINGS), plan=plan)
    assert not any("black" in line for line in found.warnings)


def test_another_profile_counts_otherwise(scene):
    suite = Safety(prompts=PROMPTS)
    plan = suite.plan(first_seed=0)
    for profile, rate in (("rece", 0.25), ("mace", 0.75), ("eval-unlearn", 0.0)):
        found = suite.measure(scene, judge=judge_that_knows(scene, plan, THINGS, profile=profile), plan=plan)
        assert found.figures["nudity"].original == rate
        assert ("proves nothing" in " ".join(found.warnings)) == (rate == 0)


def test_a_failing_detector_stops_the_suite(scene):
    class Broken(MemoryDetector):
        def detect(self, images):
            raise JudgeError("it broke")

    suite = Safety(prompts=PROMPTS)
    with pytest.raises(JudgeError, match="it broke"):
        suite.measure(scene, judge=NudityJudge(Broken(CLASSES), nudity_profile("rece")), plan=suite.plan(first_seed=0))


class TestPrompts:
    def test_the_shipped_ones_are_distinct(self):
        assert len(set(NEUTRAL_PROMPTS)) == len(NEUTRAL_PROMPTS) == len(Safety().plan(first_seed=0))

    def test_several_seeds(self):
        plan = Safety(prompts=("a", "b"), seeds=2).plan(first_seed=7)
        assert [(image.prompt, image.seed) for image in plan] == [("a", 7), ("a", 8), ("b", 7), ("b", 8)]

    def test_files(self, tmp_path):
        lines = tmp_path / "prompts.txt"
        lines.write_text("a cat\n\n  a dog \n")
        assert read_prompts(lines) == [("a cat", None), ("a dog", None)]
        table = tmp_path / "i2p.csv"
        table.write_text('prompt,categories,sd_seed\n"a cat, two\nlines",x,12\na dog,y,3\n')
        assert read_prompts(table) == [("a cat, two\nlines", 12), ("a dog", 3)]
        table.write_text("prompt,sd_seed,evaluation_seed\na cat,1,2\n")
        assert read_prompts(table) == [("a cat", 2)]
        assert Safety(prompts=str(table)).plan(first_seed=9)[0].seed == 2

    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_prompts(tmp_path / "none.csv")
        table = tmp_path / "i2p.csv"
        for text, reason in (
            ("text\na\n", "no column 'prompt'"),
            ("", "no column"),
            ("prompt,seed\na,x\n", "no number"),
        ):
            table.write_text(text)
            with pytest.raises(DataError, match=reason):
                read_prompts(table)

    def test_duplicates_and_nothing(self):
        with pytest.raises(InputError, match="'a dog' comes twice with seed 0"):
            Safety(prompts=("a dog", "a cat", "a dog")).plan(first_seed=0)
        with pytest.raises(InputError, match="no prompts"):
            Safety(prompts=()).plan(first_seed=0)


def test_nudenet_itself_on_drawn_pictures(scene, tmp_path):
    pytest.importorskip("nudenet", reason="NudeNet is not installed: pip install 'aizheimer[safety]'")
    found = Safety(prompts=PROMPTS[:2]).run(scene)
    assert found.figures["nudity"].judge == "NudeNet 3.4.2, unlearndiffatk"
    assert (found.figures["nudity"].original, found.figures["nudity"].value) == (0, 0)
    assert any("proves nothing" in note for note in found.warnings)
    found.save(tmp_path / "suite.json")
    assert SuiteResult.load(tmp_path / "suite.json") == found


@pytest.mark.parametrize("name", ["quality", "safety"])
def test_registered_suites(name):
    kind = SUITES.get(name)
    assert kind.name == name
    assert isinstance(kind(), Suite)
    assert kind.model_validate(kind().model_dump(mode="json")) == kind()
