"""What must stay: the user's words first, then neighbours, others and general prompts; never the target."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.data import retain
from aizheimer.data.retain import retain_set
from aizheimer.errors import ConceptError


def chosen(backbone, concept, *, seed=0, **counts):
    counts = {"neighbours": 2, "others": 2, "general": 1} | counts
    return retain_set(backbone, concept, generator=torch.Generator().manual_seed(seed), **counts)


def test_an_objects_set(tiny_backbone):
    found = chosen(tiny_backbone, Concept("santa claus", keep=("old man",)))
    labels = [name for name, _ in found.neighbours]
    assert found.kept == ("old man",)
    assert labels[0] == "mrs claus"  # shares a word with the target
    assert found.neighbours[0][1] > found.neighbours[1][1]
    assert len({*labels, *found.others, "old man", "santa claus"}) == 6
    # three templates of each kept or near label, one of each other, one general prompt
    assert len(found.prompts) == 3 * 3 + 2 + 1
    assert found.prompts[0].startswith("old man in ")
    assert [p.split(" in ")[0] for p in found.prompts[:3]] == ["old man", *labels]
    assert not any("santa" in prompt for prompt in found.prompts)


def test_the_first_prompts_cover_every_family(tiny_backbone):
    found = chosen(tiny_backbone, Concept("santa claus"), neighbours=3, others=0, general=0)
    assert len({prompt.split(" in ")[0] for prompt in found.prompts[:3]}) == 3


def test_a_styles_set_has_other_styles(tiny_backbone):
    found = chosen(tiny_backbone, Concept("noto", kind="style"), neighbours=1, others=1, general=3)
    assert {found.neighbours[0][0], found.others[0]} == {"flat", "twemoji"}
    assert not any("noto" in prompt for prompt in found.prompts)
    assert any(prompt.endswith("in flat style") for prompt in found.prompts)


def test_the_choice_is_a_function_of_the_generator(tiny_backbone):
    first, again, other = (chosen(tiny_backbone, Concept("cat"), seed=seed, others=4) for seed in (0, 0, 1))
    assert first == again
    assert first.prompts != other.prompts


def test_more_than_there_is_gives_all(tiny_backbone):
    found = chosen(tiny_backbone, Concept("cat"), neighbours=100, others=100, general=100)
    assert len(found.neighbours) == 10
    assert found.others == ()


def test_nothing_to_retain_is_an_error(tiny_backbone):
    with pytest.raises(ConceptError, match="nothing to retain beside 'cat'"):
        chosen(tiny_backbone, Concept("cat"), neighbours=0, others=0, general=0)


class TestSeveral:
    TARGETS = (Concept("santa claus", keep=("fox",)), Concept("cat"), Concept("noto", kind="style"))

    def test_each_has_its_own_neighbours_and_none_is_a_target(self, tiny_backbone):
        first, *also = self.TARGETS
        found = chosen(tiny_backbone, first, neighbours=1, also=also)
        alone = [chosen(tiny_backbone, Concept(one.target, kind=one.kind), neighbours=3) for one in self.TARGETS]
        assert {name for name, _ in found.neighbours} == {
            next(name for name, _ in one.neighbours if name not in ("fox", "cat", "santa claus")) for one in alone
        }
        cosines = [cosine for _, cosine in found.neighbours]
        assert cosines == sorted(cosines, reverse=True)
        assert not {"santa claus", "cat", "noto"} & {*found.others, *(name for name, _ in found.neighbours)}
        gone = {prompt for one in self.TARGETS for prompt in tiny_backbone.world.prompts(one)}
        assert not gone & set(found.prompts)
        assert not any("noto" in prompt or "santa" in prompt for prompt in found.prompts)
        assert any(prompt.startswith("fox in ") for prompt in found.prompts)

    def test_the_order_changes_nothing(self, tiny_backbone):
        first, cat, style = self.TARGETS
        one = chosen(tiny_backbone, first, also=(cat, style), others=3)
        other = chosen(tiny_backbone, Concept("noto", kind="style", keep=("fox",)), also=(cat, first), others=3)
        assert one == other

    def test_there_are_not_more_than_so_many(self, tiny_backbone, monkeypatch):
        monkeypatch.setattr(retain, "MOST_NEIGHBOURS", 3)
        first, *also = (Concept(word) for word in ("cat", "santa claus", "man"))
        assert len(chosen(tiny_backbone, first, neighbours=2, also=also).neighbours) == 3
        assert len(chosen(tiny_backbone, first, neighbours=5, also=also).neighbours) == 5
        assert len(chosen(tiny_backbone, first, neighbours=5).neighbours) == 5
        nearest = {chosen(tiny_backbone, one, neighbours=1, also=also).neighbours for one in (first,)}.pop()
        assert {name for name, _ in nearest} <= {
            name for name, _ in chosen(tiny_backbone, first, neighbours=2, also=also).neighbours
        }
