"""What must stay: the user's words first, then neighbours, others and general prompts; never the target."""

import pytest
import torch

from aizheimer.concepts import Concept
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
