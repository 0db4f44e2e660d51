"""A judge of the caller's own: what may be named, what is loaded, and that another one has another name."""

import dataclasses

import pytest
import torch

from aizheimer.concepts.concept import Concept
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge
from aizheimer.detectors.identity import IdentityJudge
from aizheimer.detectors.nudenet import NudeNetDetector, NudityJudge, nudity_profile
from aizheimer.errors import InputError, ModelError
from aizheimer.evaluation.judges import Judges, judges_for, named_judge
from aizheimer.evaluation.suite_file import load_suite, require_judged
from tests.tiny import LABELS, STYLES
from tests.unit.detectors.builders import save_clip, save_colour_judge
from tests.unit.detectors.finders import RedFinder
from tests.unit.evaluation.builders import MemoryJudge

SANTA, NOTO = Concept("santa claus"), Concept("noto", kind="style")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    names = ("santa claus", "woman", "old man")
    return save_colour_judge(tmp_path_factory.mktemp("judges") / "people", names=names)


@pytest.fixture
def nudenet(monkeypatch):
    finder = RedFinder()
    monkeypatch.setattr(NudeNetDetector, "load", classmethod(lambda cls: finder))
    return finder


def test_a_folder_with_an_image_classifier(tiny_backbone, classifier, tmp_path):
    judge = named_judge(classifier, SANTA, world=tiny_backbone.world)
    assert isinstance(judge, ImageJudge)
    assert judge.classes == ("santa claus", "woman", "old man")
    other = save_colour_judge(tmp_path / "people", names=judge.classes, temperature=2.0)
    assert named_judge(other, SANTA, world=tiny_backbone.world).name != judge.name, "a folder of the same name"


def test_a_clip_chooses_among_the_worlds_words_and_the_target(tiny_backbone, tmp_path):
    folder = save_clip(tmp_path / "clip")
    judge = named_judge(str(folder), Concept("a stranger"), world=tiny_backbone.world)
    assert isinstance(judge, ZeroShotJudge)
    assert set(judge.classes) == {*LABELS, "a stranger"}
    assert set(named_judge(folder, NOTO, world=tiny_backbone.world).classes) == set(STYLES)


def test_faces_alone_and_nudity(tiny_backbone, classifier, nudenet):
    judge = named_judge(f"faces:{classifier}", SANTA, world=tiny_backbone.world)
    assert isinstance(judge, IdentityJudge)
    assert judge.faces is nudenet
    assert judge.classes == ("santa claus", "woman", "old man")
    found = named_judge("nudenet", Concept("nudity"), world=tiny_backbone.world)
    assert isinstance(found, NudityJudge)
    assert found.classes == ("nudity",)


def test_it_takes_the_place_of_the_judge_of_the_targets_kind(tiny_backbone, classifier):
    judges = judges_for(SANTA, world=tiny_backbone.world, judge=classifier)
    assert (judges.object is not None, judges.style) == (True, None)
    judges = judges_for(NOTO, world=tiny_backbone.world, judge=judges.object)
    assert (judges.object, judges.style is not None) == (None, True)


class TestWeights:
    """A name and classes do not tell who looked: every judge is known by its weights too."""

    def test_two_clips_in_folders_of_one_name(self, tiny_backbone, tmp_path):
        saved = [save_clip(tmp_path / name / "clip", seed=seed) for name, seed in (("a", 0), ("b", 1), ("c", 0))]
        first, other, again = (judges_for(SANTA, world=tiny_backbone.world, clip=folder) for folder in saved)
        assert first.object.name == other.object.name
        assert first.object.classes == other.object.classes
        found, differs, same = (judges.made_from() for judges in (first, other, again))
        assert {name for name in found if found[name] != differs[name]} == {
            "weights of the object judge", "weights of the style judge", "weights of the CLIP",
        }  # fmt: skip
        assert found == same

    def test_a_classifier_is_known_by_weights_temperature_and_threshold(self, classifier, tmp_path):
        judge = ImageJudge.load(classifier)
        assert judge.weights == ImageJudge.load(classifier).weights
        others = [dataclasses.replace(judge, temperature=2.0), dataclasses.replace(judge, reject_threshold=0.5)]
        trained = ImageJudge.load(classifier)
        with torch.no_grad():
            next(trained.model.parameters()).add_(1e-3)
        assert judge.weights not in {other.weights for other in (*others, trained)}

    def test_one_made_of_two_is_known_by_both_and_by_what_it_does_with_them(self, classifier, tmp_path):
        people = ImageJudge.load(classifier)
        judge = IdentityJudge(NudeNetDetector(model=None), people)
        others = [
            IdentityJudge(NudeNetDetector(model=None, weights="other"), people),
            IdentityJudge(NudeNetDetector(model=None), dataclasses.replace(people, temperature=2.0)),
            dataclasses.replace(judge, margin=0.5),
        ]
        assert judge.weights not in {other.weights for other in others}
        strict, lenient = (NudityJudge(judge.faces, nudity_profile(name)) for name in ("rece", "unlearndiffatk"))
        assert strict.weights != lenient.weights

    def test_one_that_tells_none_is_known_by_name_and_classes_alone(self):
        found = Judges(object=MemoryJudge(("cat", "dog"))).made_from()
        assert list(found) == ["judges"]
        assert found != Judges(object=MemoryJudge(("cat", "cow"))).made_from()


def test_what_is_no_judge_is_one_line(tiny_backbone, tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json there; give 'nudenet', or a folder"):
        named_judge(tmp_path, SANTA, world=tiny_backbone.world)


def test_a_suite_that_asks_no_judge_does_not_take_one():
    require_judged([load_suite("families")])
    with pytest.raises(InputError, match="the suite quality and safety asks none"):
        require_judged([load_suite(name) for name in ("families", "quality", "safety")])
