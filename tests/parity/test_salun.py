"""SalUn by hand: what the concept is relabelled to, which weights may change, and that the others do not."""

from types import SimpleNamespace

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.sources import NoisedSource
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import SUM, SaliencyMask, saliency_masks
from aizheimer.engine.noise_problem import TargetTerm
from aizheimer.engine.noise_targets import CurrentPrediction
from aizheimer.methods.salun import SalUn
from tests.tiny import tiny_pipeline, tiny_world


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


@pytest.fixture(scope="module")
def source(backbone):
    latents = torch.randn(4, 4, 8, 8, generator=generator_for(1))
    return NoisedSource.of(backbone, latents, prompt_index=torch.tensor([0, 1, 0, 1]), prompts=2)


CONCEPT = ["santa claus in noto style", "santa claus"]
OTHERS = ["a cat in noto style", "a dog"]


def test_the_loss_and_its_gradient_by_hand(backbone, source):
    """The mean of (e(c) - sg e(c*))^2; in the last bias b_k its gradient is 2/C mean_k (e(c) - e(c*)).

    The bias moves both predictions alike: if the label were not held, the gradient would be zero.
    """
    concept, others = backbone.encode_prompts(CONCEPT), backbone.encode_prompts(OTHERS)
    target = CurrentPrediction(backbone=backbone, embeddings=others)
    term = TargetTerm(backbone=backbone, source=source, embeddings=concept, target=target, batch_size=4)
    loss = next(iter(term.losses(1, generator_for(0)).values())).value
    bias = backbone.denoiser.conv_out.bias
    (gradient,) = torch.autograd.grad(loss, [bias])
    draw = source.draw(4, step=1, generator=generator_for(0))
    with torch.no_grad():
        apart = backbone.predict(draw.x_t, draw.t, concept[draw.prompt_index])
        apart -= backbone.predict(draw.x_t, draw.t, others[draw.prompt_index])
    assert loss.item() == pytest.approx(apart.square().mean().item(), rel=1e-4)
    torch.testing.assert_close(gradient, 2 / 4 * apart.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-6)
    assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("g", [0.0, 7.5])
def test_the_saliency_by_hand(backbone, g):
    """The minus gradient of mean ((1 + g) e(c) - g e(empty) - noise)^2; in b_k it is -2/C mean_k of what is squared.

    Six pictures in batches of four: each is seen once, and those of the short batch count for no more than others.
    """
    latents = torch.randn(6, 4, 8, 8, generator=generator_for(1))
    source = NoisedSource.of(backbone, latents, prompt_index=torch.tensor([0, 1, 0, 1, 1, 0]), prompts=2)
    concept, null = backbone.encode_prompts(CONCEPT), backbone.encode_prompts([""])
    bias = backbone.denoiser.conv_out.bias
    method = SalUn.model_validate(
        {"saliency_guidance": g, "training": {"batch_size": 4, "steps": 1, "drift_limit": None}}
    )
    material = SimpleNamespace(
        backbone=backbone,
        parameters={"conv_out.bias": bias},
        callbacks=Callbacks(),
        data=SimpleNamespace(forget_embeddings=concept, null_embedding=null),
    )
    found = method._saliency(material, source)["conv_out.bias"]
    wanted = torch.zeros(4)
    for batch, pictures in enumerate([[0, 1, 2, 3], [4, 5]]):
        generator = generator_for(method.training.seed, "saliency", batch)
        t = torch.randint(1000, (len(pictures),), generator=generator)
        noise = torch.randn(len(pictures), 4, 8, 8, generator=generator)
        x_t = backbone.schedule.add_noise(latents[pictures], noise, t)
        with torch.no_grad():
            error = (1 + g) * backbone.predict(x_t, t, concept[source.prompt_index[pictures]]) - noise
            error -= g * backbone.predict(x_t, t, null.expand(len(pictures), -1, -1))
        wanted += -2 / 4 * error.mean(dim=(2, 3)).sum(0) / 4
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_step_by_hand():
    """Of the gradients 0.1, -3, 2, 0 and 0.5, -0.4, half are 3 entries: -3, 2 and 0.5; only those weights move."""
    saliency = {"w": torch.tensor([0.1, -3.0, 2.0, 0.0]), "b": torch.tensor([0.5, -0.4])}
    rule = SaliencyMask(saliency_masks(saliency, fraction=0.5))
    step = rule({SUM: {"w": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([5.0, 6.0])}})
    assert step["w"].tolist() == [0, 2, 3, 0]
    assert step["b"].tolist() == [5, 0]
