from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aizheimer.concepts.neighbours import nearest, nearest_of_each
from aizheimer.errors import ConceptError

VECTORS = {
    "cat": [1.0, 0.0, 0.0],
    "Cat ": [1.0, 0.0, 0.0],
    "tiger": [8.0, 6.0, 0.0],
    "dog": [0.6, 0.8, 0.0],
    "wolf": [1.2, 1.6, 0.0],
    "car": [0.0, 0.0, 5.0],
    "anti-cat": [-2.0, 0.0, 0.0],
}


def embed(words: list[str]) -> Tensor:
    return torch.tensor([VECTORS[word] for word in words])


def test_nearest_first_by_cosine_not_by_length() -> None:
    found = nearest("cat", ["anti-cat", "car", "dog", "tiger"], embed, 4)
    assert [word for word, _ in found] == ["tiger", "dog", "car", "anti-cat"]
    assert [value for _, value in found] == pytest.approx([0.8, 0.6, 0.0, -1.0], abs=1e-6)


def test_the_target_is_left_out_whatever_its_case() -> None:
    assert nearest("cat", ["Cat ", "cat", "dog"], embed, 3) == [("dog", pytest.approx(0.6))]


def test_repetitions_count_once_and_ties_keep_their_order() -> None:
    assert [word for word, _ in nearest("cat", ["wolf", "dog", "wolf", "car"], embed, 2)] == ["wolf", "dog"]
    assert [word for word, _ in nearest("cat", ["dog", "wolf"], embed, 2)] == ["dog", "wolf"]


def test_fewer_candidates_than_asked() -> None:
    assert len(nearest("cat", ["dog"], embed, 10)) == 1
    assert nearest("cat", ["cat"], embed, 10) == []
    assert nearest("cat", ["dog"], embed, 0) == []


def test_negative_number() -> None:
    with pytest.raises(ConceptError, match="got -1"):
        nearest("cat", ["dog"], embed, -1)


def test_embed_is_called_once_with_everything() -> None:
    calls = []

    def counting(words: list[str]) -> Tensor:
        calls.append(words)
        return embed(words)

    nearest("cat", ["dog", "car"], counting, 1)
    assert calls == [["cat", "dog", "car"]]


@given(k=st.integers(0, 8), seed=st.integers(0, 1000))
def test_is_the_head_of_the_whole_ranking(k: int, seed: int) -> None:
    words = [f"word {i}" for i in range(6)]
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))

    def embed(texts: list[str]) -> Tensor:
        return torch.stack([vectors[-1] if text == "target" else vectors[words.index(text)] for text in texts])

    ranking = nearest("target", words, embed, 6)
    assert nearest("target", words, embed, k) == ranking[:k]
    values = [value for _, value in ranking]
    assert values == sorted(values, reverse=True)
    cosine = torch.nn.functional.cosine_similarity(vectors[:6], vectors[-1:])
    assert dict(ranking) == pytest.approx({w: cosine[i].item() for i, w in enumerate(words)}, abs=1e-5)


def test_neighbours_of_several_are_those_of_each_without_the_others():
    calls = []

    def counting(words):
        calls.append(words)
        return embed(words)

    found = nearest_of_each(["cat", "tiger"], ["dog", "Tiger", "cat", "car"], counting, 2)
    assert found == [nearest(target, ["dog", "car"], embed, 2) for target in ("cat", "tiger")]
    assert len(calls) == 1
    assert nearest_of_each(["cat", "tiger"], ["cat"], embed, 2) == [[], []]
