"""Joint attention of image and text: the probe against the matrix written out, and what may be trained there."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from aizheimer.backbones import backbone_for
from aizheimer.backbones.flux import packed
from aizheimer.errors import SelectorError
from aizheimer.modules import attention_probe, mass, select_layers, select_parameters
from aizheimer.modules.groups import select_group
from tests.tiny_families import BUILDERS, tiny_flux, tiny_sd3

PROMPTS = ["santa claus in noto style", "a cat"]
IMAGE_TOKENS = 16


@pytest.fixture(scope="module", params=["sd3", "flux"])
def backbone(request):
    return backbone_for(BUILDERS[request.param]())


class Recorder(TorchFunctionMode):
    """Keeps queries and keys of every attention over image and text."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens, self.seen = tokens, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key = kwargs.get("query", args[0] if args else None), kwargs.get("key", args[1] if args else None)
            if key.shape[2] == IMAGE_TOKENS + self.tokens:
                self.seen.append((query.detach(), key.detach()))
        return func(*args, **kwargs)


def predict(backbone):
    x_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return backbone.predict(x_t, torch.tensor([300, 800]), backbone.condition(PROMPTS))


def test_the_probe_reads_image_queries_and_the_concepts_text_keys(backbone):
    layers = list(backbone.attention_modules())
    columns = torch.zeros(2, backbone.max_tokens, dtype=torch.bool)
    columns[:1] = backbone.token_columns(PROMPTS[:1], "santa claus", policy="concept")
    processors = [module.processor for module in backbone.attention_modules().values()]
    with torch.no_grad(), Recorder(backbone.max_tokens) as recorder:
        wanted = predict(backbone)
    with torch.no_grad(), attention_probe(backbone.denoiser, layers, columns) as probe:
        found = predict(backbone)
        probe.check()
    assert torch.allclose(found, wanted, atol=1e-5)
    assert len(recorder.seen) == len(layers)
    image_first = backbone.family == "sd3"
    for layer, (query, key) in zip(layers, recorder.seen, strict=True):
        full = torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, dim=-1)
        image = slice(0, IMAGE_TOKENS) if image_first else slice(-IMAGE_TOKENS, None)
        text = slice(-backbone.max_tokens, None) if image_first else slice(0, backbone.max_tokens)
        explicit = full[:1, :, image, text][..., columns[0]]
        assert torch.allclose(probe.maps[layer].probabilities[:1], explicit, atol=1e-6)
        assert probe.maps[layer].has_target.tolist() == [True, False]
    assert all(0 < value < 1 for value in mass(probe.maps).values())
    assert [module.processor for module in backbone.attention_modules().values()] == processors


def test_columns_of_another_length_are_refused(backbone):
    columns = torch.ones(2, backbone.max_tokens - 1, dtype=torch.bool)
    layers = list(backbone.attention_modules())
    with (
        attention_probe(backbone.denoiser, layers, columns),
        pytest.raises(SelectorError, match=rf"attends over 2 prompts x {backbone.max_tokens} tokens"),
    ):
        predict(backbone)


def test_a_block_of_one_stream_is_told_where_the_text_ends():
    """It is given image and text as one; with more text than there are columns its map had text among the queries."""
    pipe = tiny_flux(guided=False)
    pipe.tokenizer_2.model_max_length = 512
    backbone = backbone_for(pipe)
    layers = [name for name in backbone.attention_modules() if name.startswith("single_")]
    columns = backbone.token_columns(PROMPTS[:1], "santa claus", policy="concept")
    picture = packed(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    options = {"latents": picture, "num_inference_steps": 1, "output_type": "latent"}
    with attention_probe(backbone.denoiser, layers, columns) as probe:
        pipe(PROMPTS[:1], **backbone.pipeline_options, **options)
        assert probe.maps[layers[0]].probabilities.shape[2] == IMAGE_TOKENS
        with pytest.raises(
            SelectorError, match="attends over 1 prompts x 512 tokens, but the probe's columns are for 1"
        ):
            pipe(PROMPTS[:1], max_sequence_length=512, **options)
    assert not backbone.denoiser._forward_pre_hooks
    assert not backbone.denoiser._forward_pre_hooks_with_kwargs


def test_gradients_reach_the_text_keys(backbone):
    layers = select_layers(list(backbone.attention_modules()), "all")
    selection = select_parameters(backbone.denoiser, layers, ["k"])
    columns = backbone.token_columns(PROMPTS[:1], "santa claus", policy="concept").expand(2, -1)
    with attention_probe(backbone.denoiser, layers, columns) as probe:
        predict(backbone)
        loss = torch.stack(list(mass(probe.maps).values())).sum()
    parameters = selection.parameters(backbone.denoiser)
    gradients = torch.autograd.grad(loss, [p for name, p in parameters.items() if name.endswith("weight")])
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_a_second_attention_without_text_is_not_watched():
    transformer = tiny_sd3().transformer
    columns = torch.ones(1, 1, dtype=torch.bool)
    with (
        pytest.raises(SelectorError, match="without cross-attention; wanted one of the denoiser's 2"),
        attention_probe(transformer, ["transformer_blocks.0.attn2"], columns),
    ):
        pass


def test_text_keys_and_values_are_those_of_the_texts_own_stream():
    transformer = tiny_sd3().transformer
    names = select_parameters(transformer, ["transformer_blocks.0.attn"], ["k", "v"]).names
    assert names == tuple(
        f"transformer_blocks.0.attn.{part}.{kind}"
        for part in ("add_k_proj", "add_v_proj")
        for kind in ("weight", "bias")
    )
    flux = tiny_flux().transformer
    names = select_parameters(flux, ["single_transformer_blocks.0.attn"], ["k"]).names
    assert names == tuple(f"single_transformer_blocks.0.attn.to_k.{kind}" for kind in ("weight", "bias"))
    with pytest.raises(SelectorError, match=r"has no 'out' of its own: .* leave out out"):
        select_parameters(flux, ["single_transformer_blocks.0.attn"], ["out"])


def test_groups_of_a_joint_transformer():
    backbone = backbone_for(tiny_sd3())
    names = {
        group: set(select_group(backbone.denoiser, group, layers=backbone.attention_modules()).names)
        for group in ("esd-x", "esd-x-strict", "esd-u", "esd-all", "xattn", "notime", "full")
    }
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in names["esd-x-strict"]} == {
        "add_k_proj",
        "add_v_proj",
    }
    assert names["esd-x-strict"] < names["esd-x"] < names["xattn"]
    assert names["esd-x"].isdisjoint(names["esd-u"])
    assert names["esd-x"] | names["esd-u"] == names["esd-all"]
    assert any(".attn2." in name for name in names["esd-u"])
    assert not any(name.startswith(("time_text_embed.", "proj_out.")) for name in names["notime"])
    with pytest.raises(SelectorError, match="selects no parameter"):
        select_group(backbone.denoiser, "selfattn", layers=backbone.attention_modules())


def test_the_texts_entrance_is_for_all_layers(backbone):
    layers = list(backbone.attention_modules())
    assert backbone.text_projections(layers, ("v",)) == {"context_embedder": backbone.denoiser.context_embedder}
    with pytest.raises(SelectorError, match="got 1 of 2; in a joint-attention transformer text rows are read once"):
        backbone.text_projections(layers[:1], ("v",))
    with pytest.raises(SelectorError, match="wanted k, v or both"):
        backbone.text_projections(layers, ("q",))
