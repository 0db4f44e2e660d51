"""Which rows stand for a concept; the anchor's rows beside them; and never begin-of-text by accident."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.data.average_rows import average_pairs
from aizheimer.data.rows import (
    PROMPT_LIMIT,
    Place,
    aligned,
    anchor_pairs,
    encode_rows,
    forget_prompts,
    places,
    positions,
    prompt_rows,
    row_scale,
)
from aizheimer.errors import ConceptError

# BOS a S1 S2 in b EOT PAD PAD
TARGET = Place(ids=(0, 5, 7, 8, 2, 6, 9, 1, 1), own=(2, 3), eot=6)


def anchor(ids, own, eot):
    return Place(ids=(*ids, *[1] * (9 - len(ids))), own=own, eot=eot)


# BOS a A in b EOT; BOS a A1 A2 A3 in b EOT; BOS a in b EOT; BOS EOT
SHORT = anchor((0, 5, 4, 2, 6, 9), (2,), 5)
LONG = anchor((0, 5, 4, 4, 4, 2, 6, 9), (2, 3, 4), 7)
GONE = anchor((0, 5, 2, 6, 9), (), 4)
NULL = anchor((0, 9), (), 1)


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("last", [3]),
        ("last..end", [3, 4, 5, 6, 7, 8]),
        ("all", list(range(9))),
        ("others", [0, 1, 4, 5, 6, 7, 8]),
        ("eot", [6]),
        ("concept", [2, 3]),
    ],
)
def test_policies(policy, wanted):
    assert positions(TARGET, policy) == wanted


@pytest.mark.parametrize(
    ("policy", "other", "wanted"),
    [
        ("last", SHORT, [(3, 2)]),
        ("last", NULL, [(3, 1)]),
        ("last", GONE, [(3, 4)]),
        ("last..end", SHORT, [(3, 2), (4, 3), (5, 4), (6, 5), (7, 6), (8, 7)]),
        ("last..end", LONG, [(3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]),
        ("last..end", NULL, [(3, 1), (4, 2), (5, 3), (6, 4), (7, 5), (8, 6)]),
        ("eot", SHORT, [(6, 5)]),
        ("eot", NULL, [(6, 1)]),
        ("all", SHORT, [(p, p) for p in range(9)]),
        ("others", SHORT, [(0, 0), (1, 1), (4, 3), (5, 4), (6, 5), (7, 6), (8, 7)]),
        ("others", LONG, [(0, 0), (1, 1), (4, 5), (5, 6), (6, 7), (7, 8)]),
        ("others", GONE, [(0, 0), (1, 1), (4, 2), (5, 3), (6, 4), (7, 5), (8, 6)]),
        ("others", NULL, [(0, 0), (6, 1), (7, 2), (8, 3)]),
        ("concept", SHORT, [(2, 2), (3, 2)]),
        ("concept", LONG, [(2, 3), (3, 4)]),
        ("concept", NULL, [(2, 1), (3, 1)]),
    ],
)
def test_alignment(policy, other, wanted):
    assert aligned(TARGET, other, policy=policy) == wanted


def test_words_that_only_one_prompt_has_are_left_out():
    other = anchor((0, 5, 4, 3, 6, 9), (2,), 5)  # "a A X b" against "a S1 S2 in b"
    assert aligned(TARGET, other, policy="others")[:3] == [(0, 0), (1, 1), (5, 4)]


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_places_in_real_prompts(pad_token):
    from aizheimer.backbones.base import backbone_for
    from tests.tiny import tiny_pipeline, tiny_world

    backbone = backbone_for(tiny_pipeline(pad_token=pad_token), world=tiny_world())
    one, two = places(backbone, ["a santa claus in noto style", "Santa Claus"], words="santa claus")
    assert (one.own, one.eot, one.last) == ((2, 3, 4), 8, 4)  # BOS a santa cla us in noto style EOT
    assert (two.own, two.eot) == ((1, 2, 3), 4)
    (empty,) = places(backbone, [""], words="")
    assert (empty.own, empty.eot, empty.last) == ((), 1, 1)


@pytest.mark.parametrize("policy", ["last", "last..end", "eot", "concept"])
@pytest.mark.parametrize("empty", ["null", "template"])
def test_an_empty_anchor_is_never_begin_of_text(tiny_backbone, policy, empty):
    concept = Concept("santa claus")
    pairs = anchor_pairs(tiny_backbone, ["a santa claus in noto style"], concept=concept, policy=policy, empty=empty)
    begin = encode_rows(tiny_backbone, [""])[0, 0]
    assert (pairs.sources - begin).norm(dim=1).min() > 1e-3
    prompt = "" if empty == "null" else "a in noto style"
    end = places(tiny_backbone, [prompt], words="")[0].eot
    assert torch.equal(pairs.sources[0], encode_rows(tiny_backbone, [prompt])[0, end])


def test_pairs_are_the_rows_of_both_prompts(tiny_backbone):
    prompts, concept = ["santa claus in noto style"], Concept("santa claus", anchor="old man")
    pairs = anchor_pairs(tiny_backbone, prompts, concept=concept, policy="last..end")
    target, other = encode_rows(tiny_backbone, [*prompts, "old man in noto style"])
    assert torch.equal(pairs.keys, target[3:])
    assert torch.equal(pairs.sources[:20], other[2:22])
    assert len(pairs.keys) == len(pairs.sources) == 29


def test_the_average_is_the_mean_of_what_each_word_would_answer(tiny_backbone):
    prompts, words = ["santa claus in noto style", "a santa claus"], ["cat", "old man", "red apple"]
    policy = ("concept", "others")
    (average,) = average_pairs(tiny_backbone, [(Concept("santa claus"), prompts)], policy=policy, words=words)
    each = [
        anchor_pairs(tiny_backbone, prompts, concept=Concept("santa claus", anchor=word), policy=policy)
        for word in words
    ]
    for row, source in zip(average.keys, average.sources, strict=True):
        answers = [pairs.sources[(pairs.keys == row).all(dim=1)] for pairs in each]
        assert len(torch.cat(answers)) > 0
        torch.testing.assert_close(source, torch.cat(answers).mean(dim=0))
    assert len(average.keys) == 2 * tiny_backbone.max_tokens  # every row has a counterpart in some word's prompt


def test_an_average_of_one_word_is_that_anchor(tiny_backbone):
    prompts, santa = ["santa claus in noto style"], Concept("santa claus", anchor="old man")
    (one,) = average_pairs(tiny_backbone, [(santa, prompts)], policy="last..end", words=["old man"])
    other = anchor_pairs(tiny_backbone, prompts, concept=santa, policy="last..end")
    assert torch.equal(one.keys, other.keys)
    assert torch.equal(one.sources, other.sources)


def test_an_average_of_nothing_is_refused(tiny_backbone):
    asked = [(Concept("santa claus"), ["santa claus in noto style"])]
    with pytest.raises(ConceptError, match=r"no other concept has a counterpart .* name an anchor"):
        average_pairs(tiny_backbone, asked, policy="concept", words=[])
    seen = []
    words = ["cat " * 40, "cat"]  # the first is cut off, and left out
    options = {"policy": "concept", "progress": lambda *at: seen.append(at)}
    (pairs,) = average_pairs(tiny_backbone, asked, words=words, **options)
    assert torch.equal(pairs.sources[0], encode_rows(tiny_backbone, ["cat in noto style"])[0, 1])
    assert seen == [(1, 2), (2, 2)]


def test_averages_of_several_are_those_of_each_and_read_once(tiny_backbone, monkeypatch):
    """Of one token and of two, in templates and bare; a style's prompts are others."""
    named = [Concept("cat"), Concept("dog"), Concept("santa claus"), Concept("flat", kind="style")]
    asked = [(one, [one.target, *tiny_backbone.world.prompts(one)[:2]]) for one in named]
    options = {"policy": ("concept", "others"), "words": ["tree", "old man"], "scale": 1.0}
    each = [average_pairs(tiny_backbone, [one], **options)[0] for one in asked]
    read, encode = [], type(tiny_backbone).encode_prompts
    monkeypatch.setattr(
        type(tiny_backbone), "encode_prompts", lambda self, texts: read.append(texts) or encode(self, texts)
    )
    together = average_pairs(tiny_backbone, asked, **options)
    for one, alone in zip(together, each, strict=True):
        assert torch.equal(one.keys, alone.keys)
        assert torch.equal(one.sources, alone.sources)
    assert len(read) == len(asked) + 2 * 2  # the prompts of each, and two words in templates of two kinds


def test_rows_have_the_encoders_unit(tiny_backbone):
    scale = row_scale(tiny_backbone)
    raw = tiny_backbone.encode_prompts([""]).double()
    assert scale == pytest.approx(raw.square().mean().sqrt().item())
    assert encode_rows(tiny_backbone, [""]).square().mean().item() == pytest.approx(1)
    torch.testing.assert_close(
        encode_rows(tiny_backbone, ["cat"], scale=1.0), encode_rows(tiny_backbone, ["cat"]) * scale
    )


def test_rows_of_whole_prompts(tiny_backbone):
    cat, empty = encode_rows(tiny_backbone, ["old man", ""])
    assert torch.equal(prompt_rows(tiny_backbone, ["old man", ""], policy="last"), torch.stack([cat[2], empty[1]]))
    assert torch.equal(prompt_rows(tiny_backbone, ["old man"], policy="all"), cat)
    assert torch.equal(prompt_rows(tiny_backbone, ["old man"], policy="eot"), cat[3:4])


def test_forget_prompts(tiny_backbone):
    santa = Concept("santa claus")
    assert forget_prompts(tiny_backbone, santa, which="bare") == ["santa claus"]
    assert forget_prompts(tiny_backbone, santa, which="templates") == tiny_backbone.world.prompts(santa)
    assert len(forget_prompts(tiny_backbone, santa, which="both")) == 4
    style = forget_prompts(tiny_backbone, Concept("noto", kind="style"), which="templates")
    assert len(style) == min(11, PROMPT_LIMIT)
    with pytest.raises(ConceptError, match="cut off"):
        forget_prompts(tiny_backbone, Concept("cat " * 40), which="templates")
    with pytest.raises(ConceptError, match="cut off"):
        anchor_pairs(tiny_backbone, ["cat"], concept=Concept("cat", anchor="dog " * 40), policy="last")
