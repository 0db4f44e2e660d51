"""Which parameters of a text encoder are chosen, and watching what its layers say."""

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from aizheimer.errors import SelectorError
from aizheimer.modules.text_encoder import captured, last_attention_output, select_text
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def encoder():
    return tiny_pipeline().text_encoder


def test_all_but_the_word_and_position_vectors(encoder):
    chosen = select_text(encoder, final_norm=True)
    others = {name for name, _ in encoder.named_parameters()} - set(chosen.names)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in others} == {"token_embedding", "position_embedding"}
    assert list(chosen.names) == [name for name, _ in encoder.named_parameters() if name in chosen.names]


def test_the_first_blocks_attention_and_mlp(encoder):
    """HiRM's: four projections and two layers, each with a bias."""
    names = select_text(encoder, blocks=1, parts=("attention", "mlp")).names
    assert len(names) == 12
    assert all("layers.0." in name and "norm" not in name for name in names)
    assert len(select_text(encoder, blocks=1, parts=("norms",)).names) == 4


def test_a_text_encoder_that_keeps_its_blocks_elsewhere():
    config = CLIPTextConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=11, num_attention_heads=2
    )
    with torch.random.fork_rng(devices=[]):
        encoder = CLIPTextModelWithProjection(config)
    names = select_text(encoder, blocks=1, parts=("mlp",)).names
    assert [name.removeprefix("text_model.") for name in names] == [
        f"encoder.layers.0.mlp.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")
    ]
    assert len(select_text(encoder, blocks=11, parts=("mlp",)).names) == 44


@pytest.mark.parametrize("blocks", [0, 3])
def test_blocks_that_are_not_there_are_refused(encoder, blocks):
    with pytest.raises(SelectorError, match=rf"blocks: got {blocks}, this text encoder has 2; wanted 1 to 2"):
        select_text(encoder, blocks=blocks)


def test_nothing_and_no_clip_are_refused(encoder):
    with pytest.raises(SelectorError, match="parts: got none"):
        select_text(encoder, parts=())
    with pytest.raises(SelectorError, match=r"got a Linear without encoder\.layers"):
        select_text(nn.Linear(1, 1))
    with pytest.raises(SelectorError, match="choose a method that edits the denoiser"):
        last_attention_output(nn.Linear(1, 1))


def test_what_is_captured_has_gradients_and_the_hook_goes_even_after_an_error():
    layer = nn.Linear(2, 3)
    with captured(layer) as outputs:
        first, second = layer(torch.ones(1, 2)), layer(torch.zeros(1, 2))
    assert outputs[0] is first
    assert outputs[1] is second
    assert first.requires_grad
    with pytest.raises(RuntimeError), captured(layer):
        raise RuntimeError
    assert not layer._forward_hooks
