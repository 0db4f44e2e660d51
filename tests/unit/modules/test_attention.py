"""The probe leaves the denoiser as it is, whatever happens, and refuses what it cannot read."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
    SlicedAttnProcessor,
)
from torch import nn

from aizheimer.errors import AizheimerError, SelectorError
from aizheimer.modules.attention import attention_probe

TOKENS = 12


def mark(*rows: list[int]) -> torch.Tensor:
    columns = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
    for row, places in enumerate(rows):
        columns[row, places] = True
    return columns


COLUMNS = mark([2, 3], [7])


@pytest.fixture
def unet(tiny_pipeline):
    return tiny_pipeline.unet.requires_grad_(False)


@pytest.fixture
def layers(unet):
    return [name for name, _ in unet.named_modules() if name.endswith("attn2")]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([10, 700]), torch.randn(2, TOKENS, 32, generator=generator)


def processors(unet) -> list[object]:
    return list(unet.attn_processors.values())


def same_objects(left: list[object], right: list[object]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def test_output_is_unchanged_and_processors_come_back(unet, layers, inputs):
    before = processors(unet)
    expected = unet(*inputs).sample

    with attention_probe(unet, layers, COLUMNS) as probe:
        output = unet(*inputs).sample
        probe.check()

    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert same_objects(processors(unet), before)
    assert torch.equal(unet(*inputs).sample, expected)


def test_one_map_a_layer_in_execution_order(unet, layers, inputs):
    with attention_probe(unet, layers, COLUMNS) as probe:
        unet(*inputs)
        unet(*inputs)

    blocks = [layer.split("_")[0] for layer in probe.maps]
    assert blocks == ["down"] * 2 + ["mid"] + ["up"] * 4
    assert set(probe.maps) == set(layers)
    for attention in probe.maps.values():
        assert attention.probabilities.shape[0] == 2
        assert attention.probabilities.shape[-1] == 2
        assert attention.valid.tolist() == [[True, True], [True, False]]
        assert not attention.probabilities[1, :, :, 1].any()
        assert attention.probabilities[0].min() > 0


def test_only_the_asked_layers_are_watched(unet, layers, inputs):
    with attention_probe(unet, layers[2:4], COLUMNS) as probe:
        watched = sum(type(p) not in (AttnProcessor, AttnProcessor2_0) for p in processors(unet))
        unet(*inputs)
    assert watched == 2
    assert set(probe.maps) == set(layers[2:4])


def test_processors_come_back_after_an_error_in_the_block(unet, layers):
    before = processors(unet)
    with pytest.raises(RuntimeError, match="boom"), attention_probe(unet, layers, COLUMNS):
        raise RuntimeError("boom")
    assert same_objects(processors(unet), before)


def test_processors_come_back_after_an_error_inside_the_forward(unet, layers, inputs):
    before = processors(unet)
    wrong = inputs[2][:, :, :-1]
    with pytest.raises(RuntimeError), attention_probe(unet, layers, COLUMNS):
        unet(inputs[0], inputs[1], wrong)
    assert same_objects(processors(unet), before)
    # The attention function is nobody's stand-in any more either.
    unet(*inputs)


def test_probes_nest_after_one_another_but_not_inside(unet, layers, inputs):
    with attention_probe(unet, layers, COLUMNS):
        with (
            pytest.raises(SelectorError, match="_ProbedProcessor"),
            attention_probe(unet, layers, COLUMNS),
        ):
            pass
        unet(*inputs)
    with attention_probe(unet, layers, COLUMNS) as probe:
        unet(*inputs)
        probe.check()


def test_columns_may_change_between_forwards(unet, layers, inputs):
    with attention_probe(unet, layers, COLUMNS) as probe:
        unet(*inputs)
        first = {layer: attention.probabilities for layer, attention in probe.maps.items()}
        probe.columns = mark([3], [7])
        unet(*inputs)

    for layer, attention in probe.maps.items():
        torch.testing.assert_close(attention.probabilities[0, ..., 0], first[layer][0, ..., 1])
        torch.testing.assert_close(attention.probabilities[1, ..., 0], first[layer][1, ..., 0])


def test_guidance_reads_the_conditional_half_only(unet, layers, inputs):
    latents, times, embeddings = inputs
    with attention_probe(unet, layers, COLUMNS) as probe:
        unet(*inputs)
        expected = dict(probe.maps)

    double = (torch.cat([latents, latents]), times.repeat(2), torch.cat([torch.zeros_like(embeddings), embeddings]))
    plain = unet(*double).sample
    with attention_probe(unet, layers, COLUMNS, guidance=True) as probe:
        output = unet(*double).sample

    torch.testing.assert_close(output, plain, atol=1e-5, rtol=1e-5)
    for layer, attention in probe.maps.items():
        assert attention.probabilities.shape[0] == attention.valid.shape[0] == 2
        torch.testing.assert_close(attention.probabilities, expected[layer].probabilities, atol=1e-4, rtol=1e-4)


def test_check_names_the_silent_layers(unet, layers, inputs):
    with attention_probe(unet, layers, COLUMNS) as probe:
        with pytest.raises(AizheimerError, match=f"0 of {len(layers)}"):
            probe.check()
        unet.get_submodule(layers[1]).set_processor(AttnProcessor2_0())
        unet(*inputs)
        with pytest.raises(AizheimerError, match=f"{len(layers) - 1} of {len(layers)} .*silent: {layers[1]}\\."):
            probe.check()


def test_reset_forgets_the_maps(unet, layers, inputs):
    with attention_probe(unet, layers, COLUMNS) as probe:
        unet(*inputs)
        probe.check()
        probe.reset()
        assert not probe.maps
        with pytest.raises(AizheimerError, match="silent"):
            probe.check()


@pytest.mark.parametrize(
    ("columns", "guidance", "message"),
    [
        (mark([2], [3], [4]), False, r"attends over 2 prompts x 12 tokens, but .* 3 x 12;"),
        (torch.ones(2, 5, dtype=torch.bool), False, r"2 x 5;"),
        (COLUMNS, True, r"4 x 12 \(guidance: both halves\)"),
    ],
)
def test_columns_of_another_batch_are_refused(unet, layers, inputs, columns, guidance: bool, message: str):
    with (
        attention_probe(unet, layers, columns, guidance=guidance),
        pytest.raises(SelectorError, match=message),
    ):
        unet(*inputs)


def test_batches_of_another_size_can_pass_unread(unet, layers, inputs):
    latents, times, embeddings = inputs
    one = (latents[:1], times[:1], embeddings[:1])
    plain = unet(*one).sample
    with attention_probe(unet, layers, COLUMNS, skip_others=True) as probe:
        torch.testing.assert_close(unet(*one).sample, plain, atol=1e-5, rtol=1e-5)
        assert not probe.maps
        unet(*inputs)
        kept = dict(probe.maps)
        unet(*one)
        assert dict(probe.maps) == kept
        probe.check()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (torch.ones(2, TOKENS), "torch.float32 of shape"),
        (torch.ones(TOKENS, dtype=torch.bool), r"shape \(12,\)"),
        (torch.zeros(2, TOKENS, dtype=torch.bool), "mark no token"),
    ],
)
def test_columns_that_are_none_are_refused(unet, layers, columns, message: str):
    with attention_probe(unet, layers, COLUMNS) as probe, pytest.raises(SelectorError, match=message):
        probe.columns = columns


def ip_adapter() -> IPAdapterAttnProcessor2_0:
    return IPAdapterAttnProcessor2_0(hidden_size=32, cross_attention_dim=32)


class Custom:
    def __call__(self, attn, hidden_states, **kwargs):
        return hidden_states


@pytest.mark.parametrize("processor", [ip_adapter, Custom, lambda: SlicedAttnProcessor(1)])
def test_processors_that_would_be_lost_are_refused(unet, layers, processor):
    module = unet.get_submodule(layers[-1])
    module.set_processor(processor())
    before = processors(unet)
    with (
        pytest.raises(SelectorError, match=f"{type(module.processor).__name__}, which the probe would lose"),
        attention_probe(unet, layers, COLUMNS),
    ):
        pass
    assert same_objects(processors(unet), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: name + "x", "does not exist; .* 7 cross-attention modules. Did you mean"),
        (lambda name: name.replace("attn2", "attn1"), "is Attention without cross-attention"),
        (lambda name: name + ".to_k", "is Linear without cross-attention"),
    ],
)
def test_layers_that_are_no_cross_attention_are_refused(unet, layers, change, message: str):
    with pytest.raises(SelectorError, match=message), attention_probe(unet, [change(layers[0])], COLUMNS):
        pass


def test_no_layers_are_refused(unet):
    with pytest.raises(SelectorError, match="got no layers"), attention_probe(unet, [], COLUMNS):
        pass


def test_gradient_checkpointing_gives_the_same_gradients_and_no_second_map(unet, layers, inputs):
    parameters = [unet.get_parameter(f"{layer}.to_k.weight").requires_grad_() for layer in layers]
    unet.train()

    def gradients() -> list[torch.Tensor]:
        with attention_probe(unet, layers, COLUMNS) as probe:
            unet(*inputs)
            loss = sum(attention.probabilities.square().sum() for attention in probe.maps.values())
            found = torch.autograd.grad(loss, parameters)
            assert len(probe.maps) == len(layers)
            probe.check()
        return list(found)

    expected = gradients()
    unet.enable_gradient_checkpointing()
    calls = []
    unet.get_submodule(layers[0]).register_forward_pre_hook(lambda *_: calls.append(1))
    recomputed = gradients()

    assert len(calls) == 2, "nothing was recomputed, so this test shows nothing"
    for mine, other in zip(recomputed, expected, strict=True):
        torch.testing.assert_close(mine, other)


def test_adapters_around_the_projections_are_honoured_and_trained(unet, layers, inputs):
    from peft import LoraConfig

    without = unet(*inputs).sample
    unet.add_adapter(LoraConfig(r=2, target_modules=["attn2.to_k"], init_lora_weights=False))
    expected = unet(*inputs).sample
    assert not torch.allclose(expected, without, atol=1e-4)

    with attention_probe(unet, layers, COLUMNS) as probe:
        output = unet(*inputs).sample
        probe.maps[layers[0]].probabilities.square().sum().backward()

    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert unet.get_submodule(layers[0]).to_k.lora_A["default"].weight.grad.any()


@pytest.mark.parametrize("options", [{"dropout_p": 0.5}, {"is_causal": True}])
def test_attention_that_is_not_plain_is_refused(unet, layers, inputs, options: dict, monkeypatch):
    """A later diffusers might call attention so; the columns would then not be the probabilities."""

    def unusual(self, attn, hidden_states, *args, **kwargs):
        query = torch.zeros(2, 2, 4, 8)
        return F.scaled_dot_product_attention(query, query, query, **options)

    monkeypatch.setattr(AttnProcessor2_0, "__call__", unusual)
    module = unet.get_submodule(layers[0])
    with (
        attention_probe(unet, layers, COLUMNS),
        pytest.raises(AizheimerError, match="with dropout, causally or in groups"),
    ):
        module(torch.zeros(2, 4, 32), inputs[2])


MODULES = {
    "plain": {},
    "bias": {"bias": True},
    "no output bias": {"out_bias": False},
    "group norm": {"norm_num_groups": 4},
    "layer cross norm": {"cross_attention_norm": "layer_norm"},
    "group cross norm": {"cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 4},
    "residual, rescaled": {"residual_connection": True, "rescale_output_factor": 1.7},
    "query and key norm": {"qk_norm": "layer_norm"},
    "upcast": {"upcast_attention": True, "upcast_softmax": True},
    "unscaled, hence AttnProcessor": {"scale_qk": False},
    "explicit": {"processor": AttnProcessor()},
}


@pytest.mark.parametrize("options", MODULES.values(), ids=MODULES.keys())
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("spatial", [False, True], ids=["sequence", "image"])
def test_every_kind_of_module_gives_what_it_gave(options: dict, masked: bool, spatial: bool):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.ModuleDict({"attn2": Attention(16, cross_attention_dim=8, heads=2, dim_head=8, **options)})
        hidden = torch.randn(2, 16, 3, 5) if spatial else torch.randn(2, 15, 16)
        words = torch.randn(2, TOKENS, 8)
        mask = 3 * torch.randn(2, 1, TOKENS) if masked else None
    attention = module["attn2"]
    expected = attention(hidden, words, attention_mask=mask)

    with attention_probe(module, ["attn2"], COLUMNS) as probe:
        output = attention(hidden, words, attention_mask=mask)
        probe.check()

    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-6)
    assert 0 < probe.maps["attn2"].probabilities.max() <= 1
