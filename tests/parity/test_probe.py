"""The probe against diffusers' own explicit softmax, on a whole UNet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from aizheimer.modules.attention import attention_probe
from aizheimer.modules.maps import mass
from aizheimer.objectives import resteering

PROMPTS = ["santa claus in noto style", "a picture of santa claus and a tree in flat style", "red santa claus"]


@pytest.fixture
def scene(tiny_backbone):
    """A UNet, its layers in execution order, and a batch whose target stands in different places."""
    generator = torch.Generator().manual_seed(0)
    embeddings = tiny_backbone.encode_prompts(PROMPTS)
    columns = tiny_backbone.token_columns(PROMPTS, "santa claus", policy="concept+eot")
    latents = torch.randn(len(PROMPTS), 4, 8, 8, generator=generator)
    unet = tiny_backbone.pipe.unet
    return unet, list(tiny_backbone.attention_modules()), columns, (latents, torch.tensor([5, 400, 900]), embeddings)


@contextmanager
def explicit_matrices(unet, layers: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the full (batch, heads, queries, tokens) matrices with diffusers' AttnProcessor."""
    matrices: dict[str, torch.Tensor] = {}
    modules = {layer: unet.get_submodule(layer) for layer in layers}
    processors = {layer: module.processor for layer, module in modules.items()}

    def keep(layer: str):
        original = type(modules[layer]).get_attention_scores

        def scores(*args, **kwargs):
            matrix = original(modules[layer], *args, **kwargs)
            matrices[layer] = matrix.unflatten(0, (-1, modules[layer].heads))
            return matrix

        return scores

    try:
        for layer, module in modules.items():
            module.set_processor(AttnProcessor())
            module.get_attention_scores = keep(layer)
        yield matrices
    finally:
        for layer, module in modules.items():
            del module.get_attention_scores
            module.set_processor(processors[layer])


def test_maps_equal_the_columns_of_the_explicit_softmax(scene):
    unet, layers, columns, inputs = scene
    with explicit_matrices(unet, layers) as matrices, torch.no_grad():
        expected_output = unet(*inputs).sample
    with attention_probe(unet, layers, columns) as probe, torch.no_grad():
        output = unet(*inputs).sample
        probe.check()

    torch.testing.assert_close(output, expected_output, atol=1e-5, rtol=1e-5)
    assert list(probe.maps) == layers
    assert len({tuple(row.nonzero().flatten().tolist()) for row in columns}) == len(PROMPTS), "positions must differ"
    for layer, attention in probe.maps.items():
        for row, marked in enumerate(columns):
            picked = attention.probabilities[row][..., attention.valid[row]]
            torch.testing.assert_close(picked, matrices[layer][row][..., marked], atol=1e-5, rtol=0)


def test_mass_is_the_share_of_the_whole_matrix(scene):
    unet, layers, columns, inputs = scene
    with explicit_matrices(unet, layers) as matrices, torch.no_grad():
        unet(*inputs)
    with attention_probe(unet, layers, columns) as probe, torch.no_grad():
        unet(*inputs)

    for layer, value in mass(probe.maps).items():
        share = (matrices[layer] * columns[:, None, None, :]).sum() / matrices[layer].sum()
        assert value.item() == pytest.approx(share.item(), abs=1e-5)


@pytest.mark.parametrize("projection", ["to_q", "to_k"])
def test_training_gradients_equal_those_through_the_explicit_softmax(scene, projection: str):
    unet, layers, columns, inputs = scene
    parameters = [unet.get_parameter(f"{layer}.{projection}.weight") for layer in layers]

    with explicit_matrices(unet, layers) as matrices:
        unet(*inputs)
        rows = [matrix.movedim(-1, 1)[columns].flatten() for matrix in matrices.values()]
        expected_loss = torch.cat(rows).norm()
        expected = torch.autograd.grad(expected_loss, parameters)
    with attention_probe(unet, layers, columns) as probe:
        unet(*inputs)
        loss = resteering(probe.maps, variant="notebook").total
        found = torch.autograd.grad(loss, parameters)

    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    for mine, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1e-4
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-3)
