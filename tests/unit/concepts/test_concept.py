from __future__ import annotations

import dataclasses

import pytest

from aizheimer.concepts import Concept
from aizheimer.errors import ConceptError


def test_words_are_stripped() -> None:
    concept = Concept("  Santa Claus ", anchor=" old man", keep=(" Mrs. Claus ",))
    assert concept == Concept("Santa Claus", anchor="old man", keep=("Mrs. Claus",))
    assert concept.target == "Santa Claus"


def test_a_list_of_kept_words_becomes_a_tuple() -> None:
    concept = Concept("cat", keep=["dog"])  # type: ignore[arg-type]
    assert concept.keep == ("dog",)
    assert hash(concept) == hash(Concept("cat", keep=("dog",)))


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Concept("cat").target = "dog"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": ""}, "is empty"),
        ({"target": " \t\n"}, "is empty"),
        ({"target": "Cat", "keep": ("dog", "  cAT ")}, "kept and forgotten at once"),
        ({"target": "cat", "keep": ("dog", " ")}, "keep: got an empty concept"),
        ({"target": "cat", "keep": "dog"}, r"write \('dog',\)"),
        ({"target": "cat", "anchor": "CAT"}, "anchor: 'CAT' is the concept to forget itself"),
        ({"target": "cat", "kind": "styles"}, "wanted one of object, style. Did you mean 'style'"),
    ],
)
def test_bad_words(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConceptError, match=message) as caught:
        Concept(**fields)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
