"""A judge of the caller's own: what may be named, what is loaded, and that another one has another name."""

import pytest

from aizheimer.concepts.concept import Concept
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge
from aizheimer.detectors.identity import IdentityJudge
from aizheimer.detectors.nudenet import NudeNetDetector, NudityJudge
from aizheimer.errors import InputError, ModelError
from aizheimer.evaluation.judges import judges_for, named_judge
from aizheimer.evaluation.suite_file import load_suite, require_judged
from tests.tiny import LABELS, STYLES
from tests.unit.detectors.builders import save_clip, save_colour_judge
from tests.unit.detectors.finders import RedFinder

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


def test_what_is_no_judge_is_one_line(tiny_backbone, tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json there; give 'nudenet', or a folder"):
        named_judge(tmp_path, SANTA, world=tiny_backbone.world)


def test_a_suite_that_asks_no_judge_does_not_take_one():
    require_judged([load_suite("families")])
    with pytest.raises(InputError, match="the suite quality and safety asks none"):
        require_judged([load_suite(name) for name in ("families", "quality", "safety")])
