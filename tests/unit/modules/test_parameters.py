"""Which layers, which parameters, and that everything else stays as it was."""

from __future__ import annotations

import pytest
import torch

from aizheimer.errors import SelectorError
from aizheimer.modules.parameters import (
    ParameterSelection,
    select_layers,
    select_parameters,
    swapped,
    trainable,
)

# Execution order of a small UNet; named_modules would give mid last.
NAMES = [
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "down_blocks.2.attentions.0.transformer_blocks.0.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2",
]
DOWN1, DOWN2, MID, UP0, UP1 = NAMES


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", NAMES),
        ("skip_ends", [DOWN2, MID, UP0]),
        ("notebook", [DOWN2, UP0, UP1]),
        ("up_blocks", [UP0, UP1]),
        (r"^mid|up_blocks\.1", [MID, UP1]),
        (MID, [MID]),
        ([UP1, DOWN1, UP1], [DOWN1, UP1]),
        ((MID,), [MID]),
    ],
)
def test_select_layers(layers, expected: list[str]):
    assert select_layers(NAMES, layers) == expected


def test_a_name_is_taken_literally_before_it_is_a_pattern():
    assert select_layers(["a.b", "axb", "a.bc"], "a.b") == ["a.b"]


@pytest.mark.parametrize(
    ("names", "layers", "message"),
    [
        (NAMES, "sideways", "selects none of the 5 layers: down_blocks"),
        (NAMES, "skip_end", "Did you mean 'skip_ends'"),
        (NAMES[:2], "skip_ends", "selects none of the 2"),
        (NAMES[:2], "notebook", "selects none of the 2"),
        ([], "all", "no cross-attention layers to choose from; take a method without layers"),
        (NAMES, [], "selects none"),
        (NAMES, "", "selects none"),
        (NAMES, [MID, MID + "x"], "no layer is called .*attn2x.*Did you mean 'mid_block"),
        (NAMES, "up_blocks(", "nor a regular expression: missing \\)"),
    ],
)
def test_select_layers_refuses_nothing_and_the_unknown(names: list[str], layers, message: str):
    with pytest.raises(SelectorError, match=message) as error:
        select_layers(names, layers)
    assert "\n" not in str(error.value)


@pytest.fixture
def unet(tiny_pipeline):
    return tiny_pipeline.unet


@pytest.fixture
def layers(unet):
    return [name for name, _ in unet.named_modules() if name.endswith("attn2")]


def test_select_parameters_of_every_part_with_biases(unet, layers):
    layer = layers[0]
    assert select_parameters(unet, [layer], ["out", "v", "k", "q"]).names == tuple(
        f"{layer}.{end}" for end in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    )


def test_the_order_of_parts_and_repetitions_do_not_matter(unet, layers):
    twice = [*layers, layers[0]]
    assert select_parameters(unet, twice, ["k", "q", "k"]) == select_parameters(unet, layers, ["q", "k"])


def test_select_parameters_follows_adapters(unet, layers):
    from peft import LoraConfig

    unet.add_adapter(LoraConfig(r=2, target_modules=["attn2.to_k"]))
    names = select_parameters(unet, layers[:1], ["k", "q"]).names
    assert [name.removeprefix(layers[0] + ".") for name in names] == [
        "to_q.weight",
        "to_k.base_layer.weight",
        "to_k.lora_A.default.weight",
        "to_k.lora_B.default.weight",
    ]


@pytest.mark.parametrize(
    ("pick", "parts", "message"),
    [
        (lambda layers: layers, ["key"], "parts: 'key' is unknown; wanted any of q, k, v, out"),
        (lambda layers: layers, [], "select no parameter"),
        (lambda layers: [], ["k"], "select no parameter"),
        (lambda layers: ["mid_block.nowhere"], ["k"], "no projection 'mid_block.nowhere.to_k'"),
    ],
)
def test_select_parameters_refuses_nothing_and_the_unknown(unet, layers, pick, parts: list[str], message: str):
    with pytest.raises(SelectorError, match=message):
        select_parameters(unet, pick(layers), parts)


def test_trainable_frees_only_the_selection_and_restores_every_flag(unet, layers):
    selection = select_parameters(unet, layers[:2], ["k"])
    unet.conv_in.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    old_gradient = torch.ones_like(unet.get_parameter(selection.names[0]))
    unet.get_parameter(selection.names[0]).grad = old_gradient

    with trainable(unet, selection) as parameters:
        assert tuple(parameters) == selection.names
        assert {name for name, p in unet.named_parameters() if p.requires_grad} == set(selection.names)
        assert all(parameter.grad is None for parameter in parameters.values())
        sum(parameter.sum() for parameter in parameters.values()).backward()

    assert {name: parameter.requires_grad for name, parameter in unet.named_parameters()} == before
    assert unet.get_parameter(selection.names[0]).grad is old_gradient
    assert unet.get_parameter(selection.names[1]).grad is None


def test_trainable_restores_after_an_error(unet, layers):
    with pytest.raises(RuntimeError, match="boom"), trainable(unet, select_parameters(unet, layers, ["q"])):
        raise RuntimeError("boom")
    assert all(parameter.requires_grad for parameter in unet.parameters())


def test_an_unknown_parameter_is_named_before_anything_changes(unet):
    with (
        pytest.raises(SelectorError, match=r"no parameter 'conv_in.weigh'\. Did you mean 'conv_in.weight'"),
        trainable(unet, ParameterSelection(("conv_in.weigh",))),
    ):
        pass
    assert unet.conv_in.weight.requires_grad


def test_swapped_runs_with_the_other_values_and_puts_the_bits_back(unet, layers):
    names = select_parameters(unet, layers, ["k", "out"]).names
    parameters = dict(unet.named_parameters())
    parameters[names[0]].data[0, 0] = float("nan")
    storages = {name: parameters[name].data_ptr() for name in names}
    bits = {name: parameters[name].detach().clone().view(torch.int32) for name in names}
    others = {name: torch.full_like(parameters[name], 3.0) for name in names}

    with swapped(unet, others):
        assert all((parameters[name] == 3.0).all() for name in names)

    for name in names:
        assert torch.equal(parameters[name].detach().view(torch.int32), bits[name])
        assert parameters[name].data_ptr() == storages[name]
        assert parameters[name] is unet.get_parameter(name)


def test_swapped_converts_dtype_and_restores_after_an_error(unet):
    before = unet.conv_in.weight.detach().clone()
    other = {"conv_in.weight": torch.zeros(before.shape, dtype=torch.float16)}
    inside = []

    def fail() -> None:
        inside.append(unet.conv_in.weight.detach())
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), swapped(unet, other):
        fail()
    assert inside[0].dtype == torch.float32
    assert not inside[0].any()
    assert torch.equal(unet.conv_in.weight, before)


def test_a_graph_built_before_the_swap_goes_backward_after_it(unet, layers):
    """The teacher runs between the student's forward and its backward."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in [(1, 4, 8, 8), (1, 5, 32)]]
    selection = select_parameters(unet, layers, ["q", "k"])
    teacher = {name: parameter.detach() + 0.1 for name, parameter in selection.parameters(unet).items()}

    def gradients(*, teach: bool) -> list[torch.Tensor]:
        with trainable(unet, selection) as parameters:
            loss = unet(inputs[0], 10, inputs[1]).sample.square().mean()
            if teach:
                with swapped(unet, teacher), torch.no_grad():
                    assert unet(inputs[0], 10, inputs[1]).sample.square().mean() != loss
            return list(torch.autograd.grad(loss, list(parameters.values())))

    for with_teacher, without in zip(gradients(teach=True), gradients(teach=False), strict=True):
        assert torch.equal(with_teacher, without)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv_in.weight": torch.zeros(3)}, "'conv_in.weight' has shape .* the other value \\(3,\\)"),
        ({"conv_inn.weight": torch.zeros(3)}, "no parameter 'conv_inn.weight'"),
    ],
)
def test_swapped_refuses_what_does_not_fit(unet, tensors, message: str):
    before = unet.conv_in.weight.detach().clone()
    with pytest.raises(SelectorError, match=message), swapped(unet, tensors):
        pass
    assert torch.equal(unet.conv_in.weight, before)
