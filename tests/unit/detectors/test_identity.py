"""A face is found, cut out and named; a picture without one is told apart from a stranger."""

import numpy as np
import pytest
import torch

from aizheimer.detectors.base import reject_share
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge
from aizheimer.detectors.detections import crops
from aizheimer.detectors.identity import IdentityJudge
from aizheimer.errors import InputError
from tests.unit.detectors.finders import RedFinder


@pytest.fixture(scope="module")
def people(colour_folder):
    return ImageJudge.load(colour_folder)


def scene(*patches, size=40):
    """Return a green picture with red patches (left, top, edge)."""
    picture = np.zeros((size, size, 3), np.uint8)
    picture[..., 1] = 230
    for left, top, edge in patches:
        picture[top : top + edge, left : left + edge] = (230, 25, 25)
    return picture


def test_the_face_decides_and_not_what_is_around_it(people):
    judge = IdentityJudge(RedFinder(), people, margin=0.0)
    pictures = np.stack([scene((4, 6, 12)), scene()])
    # The whole picture is mostly green; its "face" is red.
    assert people.judge(pictures[:1]).labels == ["green"]
    found = judge.look(pictures)
    assert found.seen.labels == ["red", None]
    assert found.has_face.tolist() == [True, False]
    assert found.no_face == 0.5
    assert reject_share(found.seen) == 0.5
    assert found.seen.confidence[1] == 0
    assert judge.judge(pictures).labels == ["red", None]
    assert judge.classes == people.classes


def test_a_stranger_is_not_a_missing_face(colour_folder):
    strict = ImageJudge(
        name="strict", classes=("red", "green", "blue"), model=ImageJudge.load(colour_folder).model, image_size=16,
        reject_threshold=1.0,
    )  # fmt: skip
    found = IdentityJudge(RedFinder(), strict).look(scene((4, 6, 12))[None])
    assert found.seen.labels == [None]
    assert found.no_face == 0.0


def test_an_uncertain_face_is_none(people):
    # Two patches: the box around both is mostly green, so the finder is unsure.
    picture = scene((2, 2, 4), (30, 30, 4))[None]
    assert IdentityJudge(RedFinder(), people, threshold=0.3).look(picture).no_face == 1.0
    assert IdentityJudge(RedFinder(), people, threshold=0.01).look(picture).no_face == 0.0


def test_pil_pictures_tensors_and_arrays_agree(people):
    from PIL import Image

    judge = IdentityJudge(RedFinder(), people)
    array = np.stack([scene((4, 6, 12)), scene((20, 20, 9))])
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1
    for images in (array, tensor, [Image.fromarray(picture) for picture in array]):
        torch.testing.assert_close(judge.judge(images).probabilities, judge.judge(array).probabilities)


def test_boxes_are_cut_with_their_margin_and_not_beyond_the_border():
    picture = torch.arange(100.0).view(1, 1, 10, 10).expand(1, 3, 10, 10) / 50 - 1
    (cut,) = crops(picture, [(2, 3, 4, 4)], margin=0.5, size=8)
    torch.testing.assert_close(cut, picture[0, :, 1:9, 0:8])
    assert crops(picture, [(8, 8, 5, 5)], margin=0.0, size=4).shape == (1, 3, 4, 4)


def test_clip_zero_shot_can_name_people_too(clip_folder):
    people = ZeroShotJudge.load(clip_folder, ("santa claus", "mrs claus"))
    assert IdentityJudge(RedFinder(), people).judge(scene((4, 6, 12))[None]).labels[0] in people.classes


def test_a_detector_without_faces_is_refused(people):
    with pytest.raises(InputError, match="red finder has no class 'NOSE'"):
        IdentityJudge(RedFinder(), people, face_classes=("NOSE",))
