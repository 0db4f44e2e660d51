"""The anchor takes the concept's place in the words."""

import pytest

from aizheimer.concepts import Concept
from aizheimer.data.anchors import anchor_prompts

PROMPTS = ["Santa  Claus in noto style", "a photo of santa claus and SANTA CLAUS"]


def test_every_occurrence_in_any_case_is_replaced():
    found = anchor_prompts(PROMPTS, Concept("santa claus", anchor="old man"))
    assert found == ["old man in noto style", "a photo of old man and old man"]


def test_parts_of_words_are_left_alone():
    assert anchor_prompts(["a cat in a catalogue"], Concept("cat", anchor="dog")) == ["a dog in a catalogue"]


def test_signs_in_the_words_are_only_words():
    assert anchor_prompts(["a c++ (x) b"], Concept("c++ (x)", anchor=r"\1")) == [r"a \1 b"]


@pytest.mark.parametrize(
    ("kind", "empty", "expected"),
    [
        ("object", "auto", ""),
        ("object", "template", "in noto style"),
        ("style", "auto", "in noto style"),
        ("style", "null", ""),
    ],
)
def test_no_anchor(kind, empty, expected):
    concept = Concept("cat", kind=kind)
    assert anchor_prompts(["cat in noto style"], concept, empty=empty) == [expected]
