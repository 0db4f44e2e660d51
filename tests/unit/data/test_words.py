"""Prompts that are read anew, with and without free words before them."""

import pytest
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.data.words import LiveEmbeddings, check_room
from aizheimer.errors import ConceptError
from tests.tiny import DIM, MAX_TOKENS, tiny_pipeline, tiny_world

PROMPTS = ["santa claus in noto style", "cat", ""]


@pytest.fixture(params=["<|endoftext|>", "!"], ids=["pad=eot", "pad=!"])
def backbone(request):
    return backbone_for(tiny_pipeline(pad_token=request.param), world=tiny_world())


def test_they_stand_in_for_encoded_prompts(backbone):
    live, fixed = LiveEmbeddings.of(backbone, PROMPTS), backbone.encode_prompts(PROMPTS)
    index = torch.tensor([2, 0, 2, 1])
    torch.testing.assert_close(live[index], fixed[index], rtol=1e-5, atol=1e-6)


def test_they_follow_the_text_encoder_and_lead_gradients_into_it(backbone):
    live = LiveEmbeddings.of(backbone, PROMPTS)
    before = live[torch.tensor([0])].detach()
    weight = backbone.networks["text_encoder"].get_parameter("encoder.layers.0.mlp.fc1.weight")
    (gradient,) = torch.autograd.grad(live[torch.tensor([0, 0])].square().sum(), weight)
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        weight.mul_(3)
    assert not torch.allclose(live[torch.tensor([0])], before, atol=1e-3)


def test_each_prompt_of_a_batch_is_read_once(backbone):
    seen = []
    encoder = backbone.networks["text_encoder"]
    handle = encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    rows = LiveEmbeddings.of(backbone, PROMPTS)[torch.tensor([1, 1, 0, 1])]
    handle.remove()
    assert rows.shape == (4, MAX_TOKENS, DIM)
    assert seen == [2]


def test_the_vector_of_a_word_before_the_prompt_is_that_word(backbone):
    """A prefix that is the vector of "cat" reads "cat in noto style" where the prompt is "in noto style"."""
    (cat,) = backbone.pipe.tokenizer.convert_tokens_to_ids(["cat</w>"])
    prefix = backbone.word_vectors(torch.tensor([cat]))
    live = LiveEmbeddings.of(backbone, ["in noto style"]).behind(prefix)
    expected = backbone.encode_prompts(["cat in noto style"])
    torch.testing.assert_close(live[torch.tensor([0])], expected, rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_free_words(backbone):
    prefix = torch.randn(2, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    LiveEmbeddings.of(backbone, PROMPTS).behind(prefix)[torch.tensor([0, 2])].square().sum().backward()
    assert (prefix.grad.abs().sum(1) > 0).all()


def test_a_prefix_that_pushes_the_end_out_is_refused(backbone):
    prompts = ["cat", "cat " * (MAX_TOKENS - 4)]
    check_room(backbone, prompts, tokens=2)
    with pytest.raises(ConceptError, match=r"3 free tokens do not fit.*28 tokens of the 30.*at most 2"):
        check_room(backbone, prompts, tokens=3)
