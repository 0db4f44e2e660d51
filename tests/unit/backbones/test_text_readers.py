"""Stable Diffusion XL's words read with gradients: the very bits of its pipeline, into both encoders."""

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules

from aizheimer.backbones import backbone_for
from aizheimer.data.words import LiveEmbeddings
from aizheimer.errors import InputError
from tests.slopes import check_slope
from tests.snapshot import same_snapshot, snapshot
from tests.tiny import DIM, MAX_TOKENS, tiny_world
from tests.tiny_families import tiny_sdxl

PROMPTS = ["santa claus in noto style", "cat", "cat " * 40]
SECOND = DIM + 8
ENCODERS = ("text_encoder", "text_encoder_2")
FIRST_BLOCK = "encoder.layers.0.mlp.fc1.weight"


@pytest.fixture
def backbone():
    """Its second encoder is wider and deeper than the first, as in the real one."""
    found = backbone_for(tiny_sdxl(second=SECOND, blocks=(3, 4)), world=tiny_world())
    found.condition([""])  # transformers puts hooks of its own on a text encoder when hidden states are first wanted
    return found


def weight_of(backbone, network, name=FIRST_BLOCK):
    found = dict(backbone.networks[network].named_parameters())
    return found.get(name, found.get(f"text_model.{name}"))


def encoded(backbone, prompts):
    """Return the rows and pooled vectors of the pipeline's own code."""
    rows, _, pooled, _ = backbone.pipe.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    return rows, pooled


def same(told, rows, pooled):
    return torch.equal(told.tokens, rows) and torch.equal(told.pooled, pooled)


def test_what_is_read_is_what_the_pipeline_encodes_bit_for_bit(backbone):
    before = snapshot(backbone.pipe)
    told = backbone.read_tokens(backbone.token_ids(PROMPTS))
    assert told.tokens.shape == (3, MAX_TOKENS, DIM + SECOND)
    assert same(told, *encoded(backbone, PROMPTS))
    assert told.tokens.requires_grad
    assert told.pooled.requires_grad
    assert same_snapshot(before, snapshot(backbone.pipe))


def test_each_encoder_has_its_own_padding(backbone):
    ids = backbone.token_ids(["cat"])
    first, second = (one.tokenizer for one in (reader.window for reader in backbone.text_readers))
    assert ids.shape == (1, MAX_TOKENS, 2)
    assert ids[0, -1].tolist() == [first.eos_token_id, second.convert_tokens_to_ids("!")]
    assert torch.equal(ids[0, :3, 0], ids[0, :3, 1])
    swapped = backbone.read_tokens(ids.flip(-1))
    assert not torch.equal(swapped.tokens, encoded(backbone, ["cat"])[0])


def test_the_vectors_of_other_words_read_as_those_words(backbone):
    """Where the text ends is still what the ids say."""
    ids, others = backbone.token_ids(["cat"]), backbone.token_ids(["car"])
    before = snapshot(backbone.pipe)
    vectors = backbone.word_vectors(others)
    assert vectors.shape == (1, MAX_TOKENS, DIM + SECOND)
    assert same(backbone.read_tokens(ids, vectors=vectors), *encoded(backbone, ["car"]))
    assert same(backbone.read_tokens(ids), *encoded(backbone, ["cat"]))
    with pytest.raises((ValueError, RuntimeError)):
        backbone.read_tokens(ids, vectors=vectors[..., :-1])
    assert same_snapshot(before, snapshot(backbone.pipe))


@pytest.mark.parametrize("network", ENCODERS)
def test_gradients_reach_both_encoders_through_the_rows(backbone, network):
    told = backbone.read_tokens(backbone.token_ids(["cat"]))
    (gradient,) = torch.autograd.grad(told.tokens.square().sum(), weight_of(backbone, network))
    assert gradient.abs().sum() > 0


def test_the_pooled_vector_is_the_second_encoders_alone_and_comes_through_its_last_block(backbone):
    told = backbone.read_tokens(backbone.token_ids(["cat"]))
    last = "encoder.layers.3.mlp.fc1.weight"
    weights = [weight_of(backbone, "text_encoder_2", name) for name in (FIRST_BLOCK, last)]
    weights.append(weight_of(backbone, "text_encoder"))
    of_pooled = torch.autograd.grad(told.pooled.square().sum(), weights, allow_unused=True, retain_graph=True)
    assert [gradient is not None and bool(gradient.any()) for gradient in of_pooled] == [True, True, False]
    of_rows = torch.autograd.grad(told.tokens.square().sum(), weights, allow_unused=True)
    assert [gradient is not None and bool(gradient.any()) for gradient in of_rows] == [True, False, True]


@pytest.mark.parametrize("network", ENCODERS)
def test_the_gradient_is_that_of_finite_differences(network):
    """In double precision, of rows and pooled vector together, along one random direction of one weight."""
    pipe = tiny_sdxl(second=SECOND, blocks=(3, 4))
    pipe.text_encoder.double()
    pipe.text_encoder_2.double()
    double = backbone_for(pipe, world=tiny_world())
    ids, weight = double.token_ids(["santa claus"]), weight_of(double, network)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss():
        told = double.read_tokens(ids)
        return told.tokens.square().mean() + told.pooled.square().mean()

    check_slope(loss, [weight], [direction], step=1e-5, rel=1e-4, least=1e-6)


def test_an_encoder_whose_weights_are_offloaded_is_read_too(backbone):
    reader, ids = backbone.text_readers[1], backbone.token_ids(["cat"])[..., 1]
    before = reader.read(ids)
    cpu_offload(reader.encoder, execution_device=torch.device("cpu"))
    try:
        assert reader.encoder.device.type == "meta"
        offloaded = reader.read(ids)
    finally:
        remove_hook_from_submodules(reader.encoder)
    assert all(torch.equal(one, other) for one, other in zip(before, offloaded, strict=True))


def test_ids_of_one_encoder_are_refused(backbone):
    with pytest.raises(InputError, match=r"got the shape \(1, 32\), wanted \(\.\.\., 2\), each text encoder's own"):
        backbone.read_tokens(backbone.tokenize(["cat"]))
    with pytest.raises(InputError, match=r"wanted \(\.\.\., 2\)"):
        backbone.word_vectors(backbone.tokenize(["cat"]))


class TestLive:
    def test_they_stand_in_for_encoded_prompts_and_the_empty_one_is_zeros(self, backbone):
        prompts = ["santa claus in noto style", "", "cat"]
        live, fixed = LiveEmbeddings.of(backbone, prompts), backbone.condition(prompts)
        index = torch.tensor([2, 0, 1, 2])
        found, wanted = live[index], fixed[index]
        torch.testing.assert_close(found.tokens, wanted.tokens, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.pooled, wanted.pooled, rtol=1e-5, atol=1e-6)
        assert not found.tokens[2].any()
        assert not found.pooled[2].any()

    def test_the_empty_prompt_is_read_where_the_pipeline_reads_it(self, backbone):
        backbone.pipe.register_to_config(force_zeros_for_empty_prompt=False)
        assert same(LiveEmbeddings.of(backbone, [""])[torch.tensor([0])], *encoded(backbone, [""]))

    def test_free_words_are_put_before_the_prompt_in_both_encoders(self, backbone):
        """The vectors of "cat" before "in noto style" read "cat in noto style", also where nothing else is said."""
        live = LiveEmbeddings.of(backbone, ["in noto style", ""])
        (cat,) = backbone.pipe.tokenizer.convert_tokens_to_ids(["cat</w>"])
        prefix = live.vectors_of(torch.tensor([cat]))
        assert prefix.shape == (1, DIM + SECOND)
        found = live.behind(prefix)[torch.tensor([0, 1])]
        rows, pooled = encoded(backbone, ["cat in noto style", "cat"])
        torch.testing.assert_close(found.tokens, rows, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.pooled, pooled, rtol=1e-5, atol=1e-6)

    def test_gradients_reach_the_free_words_of_both_encoders(self, backbone):
        prefix = torch.randn(2, DIM + SECOND, generator=torch.Generator().manual_seed(0)).requires_grad_()
        told = LiveEmbeddings.of(backbone, ["cat"]).behind(prefix)[torch.tensor([0])]
        (of_rows,) = torch.autograd.grad(told.tokens.square().sum(), prefix, retain_graph=True)
        (of_pooled,) = torch.autograd.grad(told.pooled.square().sum(), prefix)
        assert (of_rows != 0).all()
        assert not of_pooled[:, :DIM].any()
        assert (of_pooled[:, DIM:] != 0).all()
