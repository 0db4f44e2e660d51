"""The tiny pipeline is what the other tests stand on: is it what it claims to be?"""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.duplicate import Duplicator
from tests.tiny import SPLIT_WORDS, WHOLE_WORDS, tiny_pipeline, tiny_tokenizer


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_the_tokenizer_knows_words_whole_and_splits_others(pad_token: str) -> None:
    tokenizer = tiny_tokenizer(pad_token=pad_token)
    for word in WHOLE_WORDS:
        assert tokenizer.tokenize(word) == [word + "</w>"]
    for word in SPLIT_WORDS:
        assert tokenizer.tokenize(word.replace("|", "")) == [*word.split("|")[:-1], word.split("|")[-1] + "</w>"]
    assert (tokenizer.pad_token_id == tokenizer.eos_token_id) is (pad_token != "!")


def test_the_same_seed_gives_the_same_bits_and_moves_no_global_rng() -> None:
    state = torch.get_rng_state()
    first, second, other = tiny_pipeline(), tiny_pipeline(), tiny_pipeline(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.unet.named_parameters():
        assert torch.equal(value, second.unet.get_parameter(name))
    assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)


def test_the_words_steer_the_picture(tiny_pipeline: StableDiffusionPipeline) -> None:
    def draw(prompt: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return tiny_pipeline(prompt, num_inference_steps=4, generator=generator, output_type="pt").images

    assert draw("cat").shape == (1, 3, 32, 32)
    assert torch.equal(draw("cat"), draw("CAT"))
    assert (draw("cat") - draw("santa claus")).abs().max() > 1 / 255


def test_copies_are_independent(
    tiny_pipeline: StableDiffusionPipeline, pristine_tiny_pipeline: StableDiffusionPipeline
) -> None:
    assert tiny_pipeline.unet is not pristine_tiny_pipeline.unet
    with torch.no_grad():
        tiny_pipeline.unet.conv_in.weight.zero_()
    assert pristine_tiny_pipeline.unet.conv_in.weight.abs().sum() > 0


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(2, 2)
        self.same = self.one  # tied
        self.one.weight.requires_grad_(False)
        self.register_buffer("count", torch.arange(3))


def test_copies_are_what_deepcopy_makes() -> None:
    original = Net()
    duplicator = Duplicator(original.eval())
    one, other = duplicator(), duplicator()
    assert one.same is one.one
    assert not one.training
    assert (one.one.weight.requires_grad, one.one.bias.requires_grad) == (False, True)
    assert isinstance(one.one.weight, torch.nn.Parameter)
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in one.state_dict().items())
    places = {tensor.data_ptr() for net in (original, one, other) for tensor in net.state_dict().values()}
    assert len(places) == 3 * 3
