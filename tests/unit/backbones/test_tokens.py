from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aizheimer.backbones.tokens import TokenPolicy, columns, occurrences
from aizheimer.errors import SelectorError


@pytest.mark.parametrize(
    ("prompt", "concept", "starts"),
    [
        ([7, 1, 2, 9, 1, 2], [1, 2], [1, 4]),
        ([1, 1, 1], [1, 1], [0, 1]),
        ([1, 2], [1, 2, 3], []),
        ([1, 3, 2], [1, 2], []),
        ([], [1], []),
        ([1, 2], [], []),
    ],
)
def test_occurrences(prompt: list[int], concept: list[int], starts: list[int]) -> None:
    assert occurrences(prompt, concept) == starts


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_occurrences_are_those_of_text_search(prompt: list[int], concept: list[int]) -> None:
    text, word = "".join(map(str, prompt)), "".join(map(str, concept))
    assert occurrences(prompt, concept) == [i for i in range(len(text)) if text.startswith(word, i)]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        # <start> a b [C C] d [C C] <end> pad pad: positions 3, 4 and 6, 7; end at 8.
        ("concept", [3, 4, 6, 7]),
        ("last", [4, 7]),
        ("concept+eot", [3, 4, 6, 7, 8]),
        ("concept+eot+padding", [3, 4, 6, 7, 8, 9, 10]),
    ],
)
def test_policies(policy: TokenPolicy, wanted: list[int]) -> None:
    assert columns([2, 5], 2, length=7, max_tokens=11, policy=policy) == wanted


@pytest.mark.parametrize(
    ("policy", "wanted"),
    # The window holds 4 tokens, the prompt 6; of the second occurrence one token is inside.
    [("concept", [1, 2, 4]), ("last", [2]), ("concept+eot", [1, 2, 4, 5]), ("concept+eot+padding", [1, 2, 4, 5])],
)
def test_an_occurrence_over_the_edge(policy: TokenPolicy, wanted: list[int]) -> None:
    assert columns([0, 3], 2, length=6, max_tokens=6, policy=policy) == wanted


def test_every_policy_is_known_and_others_are_not() -> None:
    for policy in get_args(TokenPolicy):
        assert columns([0], 1, length=1, max_tokens=4, policy=policy)
    with pytest.raises(SelectorError, match=r"got 'concept\+eos', wanted one of .* Did you mean 'concept\+eot'"):
        columns([0], 1, length=1, max_tokens=4, policy="concept+eos")  # type: ignore[arg-type]
