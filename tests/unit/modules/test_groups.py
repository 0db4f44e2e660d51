"""Groups of parameters by the names that papers give them."""

import pytest
from torch import nn

from aizheimer.backbones.networks import cross_attention_modules
from aizheimer.errors import SelectorError
from aizheimer.modules.groups import GROUPS, select_group
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def unet():
    return tiny_pipeline().unet


@pytest.fixture(scope="module")
def names(unet):
    return {group: set(select_group(unet, group, layers=cross_attention_modules(unet)).names) for group in GROUPS}


def test_cross_attention_and_the_rest_are_all(unet, names):
    every = {name for name, _ in unet.named_parameters()}
    assert names["full"] == names["unet"] == every
    assert names["esd-x"] | names["esd-u"] == names["esd-all"]
    assert not names["esd-x"] & names["esd-u"]
    assert names["xattn"] == names["cross-attention"] == {name for name in every if ".attn2." in name}
    assert names["esd-x"] == names["xattn"]  # cross-attention has no norm of its own in Stable Diffusion


def test_strict_is_keys_and_values(names):
    endings = (".attn2.to_k.weight", ".attn2.to_v.weight")
    assert names["esd-x-strict"] == {name for name in names["esd-x"] if name.endswith(endings)}
    assert len(names["esd-x-strict"]) == 14


def test_2024_leaves_norms_alone_and_2023_does_not(unet, names):
    norms = {
        f"{module_name}.{name}"
        for module_name, module in unet.named_modules()
        if isinstance(module, nn.GroupNorm | nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    assert not norms & names["esd-all"]
    assert norms - {"conv_norm_out.weight", "conv_norm_out.bias"} <= names["noxattn"]


def test_time_and_output_are_left_out_by_2023_and_in_by_2024(names):
    outer = {"conv_out.weight", "time_embedding.linear_1.weight"}
    assert outer <= names["esd-u"]
    assert not outer & (names["noxattn"] | names["notime"])
    assert "conv_in.weight" in names["noxattn"]
    assert any("time_emb_proj" in name for name in names["noxattn"])
    assert names["notime"] - names["noxattn"] == names["xattn"]


def test_self_attention(names):
    assert names["selfattn"]
    assert all(".attn1." in name for name in names["selfattn"])


def test_unknown_and_empty_groups_are_refused():
    with pytest.raises(SelectorError, match=r"'xatn'.*Did you mean 'xattn'"):
        select_group(nn.Linear(2, 2), "xatn", layers=())
    with pytest.raises(SelectorError, match="selects no parameter"):
        select_group(nn.Linear(2, 2), "esd-x", layers=())
