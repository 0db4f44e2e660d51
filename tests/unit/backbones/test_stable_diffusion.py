from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, StableDiffusionPipeline

from aizheimer.backbones import Backbone, TokenPolicy, backbone_for
from aizheimer.backbones.stable_diffusion import StableDiffusionBackbone
from aizheimer.concepts import DEFAULT_WORLD, World
from aizheimer.concepts.neighbours import nearest
from aizheimer.errors import ConceptError, DataError, ModelError, SelectorError
from tests.tiny import MAX_TOKENS
from tests.tiny import tiny_pipeline as build_pipeline

PROMPTS = ["a photo of santa claus", "", "red apple in noto style"]
LONG = "cat " * 40


@pytest.fixture(scope="module", params=["<|endoftext|>", "!"], ids=["pad=eot", "pad=!"])
def padded(request: pytest.FixtureRequest) -> StableDiffusionBackbone:
    """Padding as in Stable Diffusion 1 and as in Stable Diffusion 2. Read only."""
    return StableDiffusionBackbone(build_pipeline(pad_token=request.param))


def latents(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def columns(backbone: Backbone, prompt: str, concept: str, policy: TokenPolicy = "concept") -> list[int]:
    (row,) = backbone.token_columns([prompt], concept, policy=policy)
    return row.nonzero().flatten().tolist()


# ------------------------------------------------------------------------------------ what it says of itself


def test_is_a_backbone(tiny_backbone: StableDiffusionBackbone) -> None:
    assert isinstance(tiny_backbone, Backbone)
    assert tiny_backbone.latent_shape == (4, 8, 8)
    assert tiny_backbone.max_tokens == MAX_TOKENS
    assert (tiny_backbone.device, tiny_backbone.dtype) == (torch.device("cpu"), torch.float32)
    assert tiny_backbone.denoiser is tiny_backbone.pipe.unet
    assert torch.equal(tiny_backbone.schedule.alphas_cumprod, tiny_backbone.pipe.scheduler.alphas_cumprod)
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_backbone.world = DEFAULT_WORLD  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_prediction_type(tiny_backbone: StableDiffusionBackbone, kind: str) -> None:
    tiny_backbone.pipe.scheduler.register_to_config(prediction_type=kind)
    assert tiny_backbone.prediction_type == kind


def test_latents_need_not_be_square(tiny_backbone: StableDiffusionBackbone) -> None:
    tiny_backbone.pipe.unet.register_to_config(sample_size=[8, 16])
    assert tiny_backbone.latent_shape == (4, 8, 16)


def test_world_comes_from_the_folder_or_is_the_default_or_is_given(
    tiny_pipeline: StableDiffusionPipeline, tiny_world: World
) -> None:
    assert backbone_for(tiny_pipeline).world.name == "tiny"
    assert backbone_for(tiny_pipeline, world=tiny_world).world is tiny_world
    tiny_pipeline.register_to_config(_name_or_path=None)
    assert backbone_for(tiny_pipeline).world is DEFAULT_WORLD


def test_a_hub_id_is_not_read_as_a_folder_here(
    tiny_pipeline: StableDiffusionPipeline, tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "world.json").write_text(tiny_world.to_json())
    monkeypatch.chdir(tmp_path)
    tiny_pipeline.register_to_config(_name_or_path="somebody/model")
    assert backbone_for(tiny_pipeline).world is DEFAULT_WORLD


def test_another_family_is_refused_by_name(tiny_pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(ModelError, match="got a DDIMPipeline; wanted one of StableDiffusionPipeline"):
        backbone_for(DDIMPipeline(unet=tiny_pipeline.unet, scheduler=tiny_pipeline.scheduler))


# ------------------------------------------------------------------------------------------------------- text


def test_encodings_are_what_the_pipeline_feeds_its_unet(padded: StableDiffusionBackbone) -> None:
    pipe, fed = padded.pipe, []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _, __, kwargs: fed.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    with hook:
        pipe(PROMPTS, num_inference_steps=1, guidance_scale=2.0, output_type="latent")
    ours = padded.encode_prompts(["", *PROMPTS])
    assert torch.equal(fed[0][3:], padded.encode_prompts(PROMPTS))
    assert torch.allclose(fed[0][:3], ours[:1].expand(3, -1, -1), atol=1e-6)
    assert not ours.requires_grad


def test_tokens_are_read_as_prompts_are_encoded(padded: StableDiffusionBackbone) -> None:
    ids = padded.tokenize(PROMPTS)
    assert torch.equal(padded.read_tokens(ids), padded.encode_prompts(PROMPTS))
    assert padded.read_tokens(ids).requires_grad


def test_given_vectors_are_read_in_the_place_of_the_words_own(padded: StableDiffusionBackbone) -> None:
    """With the vectors of other words the text is those words'; the table of words is as it was."""
    ids, others = padded.tokenize(["cat"]), padded.tokenize(["red apple in noto style"])
    read = padded.read_tokens(ids, vectors=padded.word_vectors(others))
    assert torch.equal(read, padded.encode_prompts(["red apple in noto style"]))
    assert torch.equal(padded.read_tokens(ids), padded.encode_prompts(["cat"]))
    with pytest.raises(RuntimeError):
        padded.read_tokens(ids, vectors=torch.zeros(1, 2, 3))
    assert not padded.pipe.text_encoder.get_input_embeddings()._forward_hooks


def test_a_text_encoder_that_wants_a_mask_is_refused(tiny_backbone: StableDiffusionBackbone) -> None:
    tiny_backbone.pipe.text_encoder.config.use_attention_mask = True
    with pytest.raises(ModelError, match="reads an attention mask"):
        tiny_backbone.read_tokens(tiny_backbone.tokenize(["cat"]))


def test_the_networks_an_edit_may_change(tiny_backbone: StableDiffusionBackbone) -> None:
    pipe = tiny_backbone.pipe
    assert dict(tiny_backbone.networks) == {"unet": pipe.unet, "text_encoder": pipe.text_encoder}


def test_encodings_do_not_depend_on_the_batch(padded: StableDiffusionBackbone) -> None:
    many = padded.encode_prompts(PROMPTS * 25)  # more than one batch of the text encoder
    assert many.shape == (75, MAX_TOKENS, 32)
    assert torch.allclose(many.view(25, 3, MAX_TOKENS, 32), padded.encode_prompts(PROMPTS), atol=1e-6)


def test_token_ids_are_those_the_text_encoder_gets(padded: StableDiffusionBackbone) -> None:
    got: list[torch.Tensor] = []
    prompts = [*PROMPTS, LONG]
    with padded.pipe.text_encoder.register_forward_pre_hook(lambda _, args: got.append(args[0])):
        padded.encode_prompts(prompts)
    assert torch.equal(padded.tokenize(prompts), got[0])
    assert padded.tokenize(prompts).shape == (4, MAX_TOKENS)


def test_textual_inversions_are_spelt_out(tiny_backbone: StableDiffusionBackbone) -> None:
    pipe = tiny_backbone.pipe
    pipe.load_textual_inversion({"<saint>": torch.ones(3, 32)}, token="<saint>")
    assert columns(tiny_backbone, "a photo of <saint>", "<saint>") == [4, 5, 6]
    got: list[torch.Tensor] = []
    with pipe.text_encoder.register_forward_pre_hook(lambda _, args: got.append(args[0])):
        tiny_backbone.encode_prompts(["a <saint>"])
    assert torch.equal(tiny_backbone.tokenize(["a <saint>"]), got[0])


def test_a_bare_text_is_not_a_list_of_letters(tiny_backbone: StableDiffusionBackbone) -> None:
    with pytest.raises(TypeError, match="wanted a sequence of texts"):
        tiny_backbone.encode_prompts("cat")
    with pytest.raises(ConceptError, match="got none"):
        tiny_backbone.encode_prompts([])


def test_embedded_concepts_are_the_mean_over_their_tokens_and_end(padded: StableDiffusionBackbone) -> None:
    words = ["santa claus", "cat", LONG]
    hidden = padded.encode_prompts(words)
    wanted = torch.stack([hidden[0, 1:5].mean(0), hidden[1, 1:3].mean(0), hidden[2, 1:MAX_TOKENS].mean(0)])
    assert torch.allclose(padded.embed_concepts(words), wanted, atol=1e-6)


def test_embedded_concepts_find_neighbours(tiny_backbone: StableDiffusionBackbone) -> None:
    found = nearest("santa claus", ["cat", "SANTA  claus", "mrs claus"], tiny_backbone.embed_concepts, 3)
    assert found[0] == ("SANTA  claus", pytest.approx(1.0, abs=1e-5))  # the same tokens, another spelling
    assert len(found) == 3


# ------------------------------------------------------------------------------------------- columns of tokens


@pytest.mark.parametrize(
    ("prompt", "concept", "wanted"),
    [
        ("a photo of santa claus", "santa claus", [4, 5, 6]),  # santa cla us
        ("A PHOTO of Santa\n  CLAUS.", " santa Claus", [4, 5, 6]),
        ("santa claus and mrs claus", "claus", [2, 3, 6, 7]),
        ("santa and santa claus", "santa claus", [3, 4, 5]),
        ("red red apple", "red apple", [2, 3, 4]),
        ("cat", "cat", [1]),
        ("a cat's face, cat!", "cat", [2, 7]),
        ("mrs. claus in flat style", "mrs. claus", [1, 2, 3, 4]),
    ],
)
def test_columns_of_the_concept(padded: StableDiffusionBackbone, prompt: str, concept: str, wanted: list[int]) -> None:
    assert columns(padded, prompt, concept) == wanted
    named = padded.tokenize([prompt])[0, wanted].tolist()
    size = len(padded.pipe.tokenizer.tokenize(concept))
    alone = padded.tokenize([concept])[0, 1 : 1 + size].tolist()
    assert named == alone * (len(wanted) // size)


def test_only_the_first_end_of_text_is_not_padding(padded: StableDiffusionBackbone) -> None:
    """In Stable Diffusion 1 all the padding has the id of end-of-text; in Stable Diffusion 2 it does not."""
    prompt = "a photo of santa claus"
    assert columns(padded, prompt, "santa claus", "concept+eot") == [4, 5, 6, 7]
    assert columns(padded, prompt, "santa claus", "concept+eot+padding") == list(range(4, MAX_TOKENS))
    assert columns(padded, prompt, "santa claus", "last") == [6]
    ids, tokenizer = padded.tokenize([prompt])[0], padded.pipe.tokenizer
    assert ids[7] == tokenizer.eos_token_id
    assert set(ids[8:].tolist()) == {tokenizer.pad_token_id}


def test_an_exclamation_mark_in_a_prompt_is_not_padding(padded: StableDiffusionBackbone) -> None:
    assert columns(padded, "! cat ! !", "cat", "concept+eot") == [2, 5]


def test_columns_in_a_batch_of_different_positions(padded: StableDiffusionBackbone) -> None:
    prompts = ["santa claus in noto style", "a photo of santa claus", "santa claus and santa claus"]
    marked = padded.token_columns(prompts, "santa claus", policy="concept")
    assert marked.shape == (3, MAX_TOKENS)
    assert marked.dtype == torch.bool
    assert [row.nonzero().flatten().tolist() for row in marked] == [[1, 2, 3], [4, 5, 6], [1, 2, 3, 5, 6, 7]]


@pytest.mark.parametrize("before", range(24, 33))
def test_columns_at_the_edge_of_the_window(padded: StableDiffusionBackbone, before: int) -> None:
    """``before`` tokens, then three of the concept; the window holds 30."""
    prompt = "cat " * before + "santa claus"
    if before + 3 > MAX_TOKENS - 2:
        with pytest.raises(ConceptError, match=r"is cut off: prompt .* has \d+ tokens, the model reads 30"):
            columns(padded, prompt, "santa claus")
        return
    wanted = [before + 1, before + 2, before + 3]
    assert columns(padded, prompt, "santa claus", "concept+eot") == [*wanted, before + 4]
    ids = padded.tokenize([prompt])[0].tolist()
    assert ids.index(padded.pipe.tokenizer.eos_token_id) == before + 4


def test_one_whole_occurrence_in_the_window_is_enough(padded: StableDiffusionBackbone) -> None:
    prompt = "santa claus " + "cat " * 25 + "santa claus"
    assert columns(padded, prompt, "santa claus", "concept+eot") == [1, 2, 3, 29, 30, 31]


@pytest.mark.parametrize("prompt", ["a photo of santa", "claus santa", "", "santa clauses", "santa and claus"])
def test_a_concept_that_is_not_there(padded: StableDiffusionBackbone, prompt: str) -> None:
    with pytest.raises(ConceptError) as caught:
        padded.token_columns(["santa claus", prompt], "Santa Claus", policy="concept")
    message = str(caught.value)
    assert "'Santa Claus' (tokens: santa</w> cla us</w>) is not in prompt" in message
    assert repr(prompt) in message
    assert "\n" not in message


def test_a_part_of_a_word_is_not_the_word(padded: StableDiffusionBackbone) -> None:
    with pytest.raises(ConceptError, match="is not in prompt 'a catalog'"):
        columns(padded, "a catalog", "cat")


def test_bad_concepts_and_policies(tiny_backbone: StableDiffusionBackbone) -> None:
    with pytest.raises(ConceptError, match="has no tokens"):
        columns(tiny_backbone, "a cat", "  ")
    with pytest.raises(SelectorError, match="token policy"):
        # Undo the type checks of the tests: a caller has none.
        StableDiffusionBackbone.token_columns.__wrapped__(tiny_backbone, ["cat"], "cat", policy="all")  # type: ignore


# ----------------------------------------------------------------------------------------------------- images


def test_latents_are_the_scaled_posterior(tiny_backbone: StableDiffusionBackbone) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = tiny_backbone.pipe.vae.encode(pixels).latent_dist
    mean = tiny_backbone.encode_images(pixels)
    assert torch.equal(mean, posterior.mean * 0.5)
    assert not mean.requires_grad
    sample = tiny_backbone.encode_images(pixels, torch.Generator().manual_seed(3))
    assert torch.equal(sample, posterior.sample(torch.Generator().manual_seed(3)) * 0.5)
    assert not torch.equal(sample, mean)


def test_decoding_is_that_of_the_pipeline(tiny_backbone: StableDiffusionBackbone) -> None:
    pipe = tiny_backbone.pipe
    kwargs: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0}
    drawn = pipe("cat", generator=torch.Generator().manual_seed(0), output_type="latent", **kwargs).images
    image = pipe("cat", generator=torch.Generator().manual_seed(0), output_type="pt", **kwargs).images
    pixels = tiny_backbone.decode_latents(drawn)
    assert torch.allclose(pixels / 2 + 0.5, image.float(), atol=1e-6)
    assert tiny_backbone.decode_latents(drawn * 1000).abs().max() == 1


def test_images_that_do_not_fit(tiny_backbone: StableDiffusionBackbone) -> None:
    with pytest.raises(DataError, match=r"got \(32, 30\) pixels, wanted multiples of 4"):
        tiny_backbone.encode_images(torch.zeros(1, 3, 32, 30))
    with pytest.raises(DataError, match="got pixel values up to 255"):
        tiny_backbone.encode_images(torch.full((1, 3, 32, 32), 255.0))


# ----------------------------------------------------------------------------------------------------- denoiser


@pytest.mark.parametrize("t", [7, torch.tensor(7), torch.tensor([7, 7])])
def test_predict_is_the_unet(tiny_backbone: StableDiffusionBackbone, t: int | torch.Tensor) -> None:
    embeddings = tiny_backbone.encode_prompts(["cat", "dog"])
    wanted = tiny_backbone.pipe.unet(latents(), 7, encoder_hidden_states=embeddings).sample
    ours = tiny_backbone.predict(latents(), t, embeddings)
    assert torch.equal(ours, wanted)
    assert ours.requires_grad


def test_predict_with_another_network(tiny_backbone: StableDiffusionBackbone) -> None:
    embeddings, other = tiny_backbone.encode_prompts(["cat", "dog"]), build_pipeline(seed=1).unet
    ours = tiny_backbone.predict(latents(), 7, embeddings, denoiser=other)
    assert torch.equal(ours, other(latents(), 7, embeddings).sample)


def test_attention_modules_in_true_order(tiny_backbone: StableDiffusionBackbone) -> None:
    unet, ran, hooks = tiny_backbone.pipe.unet, [], []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            hooks.append(module.register_forward_hook(lambda *_, name=name: ran.append(name)))
    registered = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
    tiny_backbone.predict(latents(), 5, tiny_backbone.encode_prompts(["cat", "dog"]))
    found = tiny_backbone.attention_modules()
    assert list(found) == ran
    assert registered != ran  # the trap: named_modules() has the middle last
    assert sorted(registered) == sorted(ran)
    assert len(found) == 7
    assert all(unet.get_submodule(name) is module for name, module in found.items())


def test_a_unet_without_a_middle(tiny_backbone: StableDiffusionBackbone) -> None:
    tiny_backbone.pipe.unet.mid_block = None
    assert len(tiny_backbone.attention_modules()) == 6


def test_self_attention_is_not_cross_attention(tiny_backbone: StableDiffusionBackbone) -> None:
    modules = dict(tiny_backbone.pipe.unet.named_modules())
    name = next(iter(tiny_backbone.attention_modules()))
    modules[name].is_cross_attention = False
    assert name not in tiny_backbone.attention_modules()


def test_frozen_restores_each_parameter(tiny_backbone: StableDiffusionBackbone) -> None:
    pipe = tiny_backbone.pipe
    pipe.vae.requires_grad_(False)
    nets = (pipe.unet, pipe.vae, pipe.text_encoder)
    before = [p.requires_grad for net in nets for p in net.parameters()]

    def fail() -> None:
        assert not any(p.requires_grad for net in nets for p in net.parameters())
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), tiny_backbone.frozen():
        fail()
    assert [p.requires_grad for net in nets for p in net.parameters()] == before
    assert True in before
    assert False in before


def test_frozen_without_a_text_encoder(tiny_backbone: StableDiffusionBackbone) -> None:
    tiny_backbone.pipe.text_encoder = None
    with tiny_backbone.frozen():
        assert not next(tiny_backbone.denoiser.parameters()).requires_grad


# -------------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_names_the_weights(tiny_backbone: StableDiffusionBackbone) -> None:
    print_ = tiny_backbone.fingerprint()
    assert len(print_) == 16
    assert int(print_, 16) >= 0
    assert StableDiffusionBackbone(copy.deepcopy(tiny_backbone.pipe)).fingerprint() == print_
    assert StableDiffusionBackbone(build_pipeline(seed=1)).fingerprint() != print_


def test_fingerprint_notices_one_bit_and_its_return(tiny_backbone: StableDiffusionBackbone) -> None:
    before = tiny_backbone.fingerprint()
    weight = tiny_backbone.pipe.unet.conv_out.bias
    old = weight.detach().clone()
    with torch.no_grad():
        weight[0] = torch.nextafter(weight[0], torch.tensor(1e9))
    assert tiny_backbone.fingerprint() != before
    with torch.no_grad():
        weight.copy_(old)
    assert tiny_backbone.fingerprint() == before


def test_fingerprint_notices_an_exchanged_parameter(tiny_backbone: StableDiffusionBackbone) -> None:
    before = tiny_backbone.fingerprint()
    conv = tiny_backbone.pipe.unet.conv_out
    conv.bias = torch.nn.Parameter(conv.bias.detach() + 1)
    assert tiny_backbone.fingerprint() != before


def test_fingerprint_is_computed_once(tiny_backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny_backbone.fingerprint()
    monkeypatch.setattr("hashlib.sha256", lambda: pytest.fail("hashed again"))
    assert tiny_backbone.fingerprint() == before


def test_fingerprint_of_half_precision_is_that_of_its_float32(tiny_backbone: StableDiffusionBackbone) -> None:
    unet = tiny_backbone.pipe.unet.half()
    half = tiny_backbone.fingerprint()
    unet.float()
    assert StableDiffusionBackbone(tiny_backbone.pipe).fingerprint() == half
