"""The censored loss by hand: what is added is what must be predicted, under the caption or the empty prompt."""

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.sources import NoisedSource
from aizheimer.engine.caption_term import CaptionTerm
from tests.tiny import tiny_pipeline, tiny_world


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


def term(backbone, *, captions, dropout=0.0, latents=None, **options):
    latents = torch.randn(len(captions), 4, 8, 8, generator=generator_for(1)) if latents is None else latents
    source = NoisedSource.of(backbone, latents, prompt_index=torch.arange(len(latents)), prompts=len(latents))
    return CaptionTerm(backbone=backbone, source=source, captions=captions, dropout=dropout, batch_size=4, **options)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_by_hand(kind):
    r"""x_t = a x_0 + b e; the mean of (e - prediction)^2, or of (a e - b x_0 - prediction)^2 for velocities."""
    backbone = backbone_for(tiny_pipeline(prediction_type=kind), world=tiny_world())
    captions = (("a cat",), ("a dog",))
    one = term(backbone, captions=captions)
    found = one.losses(1, generator_for(0))["noise"]
    draw = one.source.draw(4, step=1, generator=generator_for(0))
    alpha = backbone.schedule.alphas_cumprod[draw.t].view(-1, 1, 1, 1)
    x_0 = one.source.latents[draw.prompt_index]
    noise = (draw.x_t - alpha.sqrt() * x_0) / (1 - alpha).sqrt()
    wanted = noise if kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * x_0
    words = backbone.encode_prompts([captions[i][0] for i in draw.prompt_index.tolist()])
    prediction = backbone.predict(draw.x_t, draw.t, words)
    error = (wanted - prediction.detach()).square().mean()
    assert found.value.item() == pytest.approx(error.item(), rel=1e-4)
    assert found.weight == 1.0


def test_its_gradient_against_finite_differences(backbone):
    bias = backbone.denoiser.conv_out.bias
    one = term(backbone, captions=(("a cat", "cat"), ("a dog",)))

    def loss() -> torch.Tensor:
        return one.losses(1, generator_for(3))["noise"].value

    (gradient,) = torch.autograd.grad(loss(), [bias])
    for i in range(len(bias)):
        with torch.no_grad():
            bias[i] += 1e-2
            high = loss().item()
            bias[i] -= 2e-2
            low = loss().item()
            bias[i] += 1e-2
        # The loss is a parabola in this bias: central differences are exact.
        assert (high - low) / 2e-2 == pytest.approx(float(gradient[i]), abs=2e-3)


class TestCaptions:
    """What the text encoder is asked to read."""

    @pytest.fixture
    def read(self, backbone, monkeypatch):
        texts: list[str] = []
        encode = type(backbone).encode_prompts

        def note(self, prompts):
            texts.extend(prompts)
            return encode(self, prompts)

        monkeypatch.setattr(type(backbone), "encode_prompts", note)
        return texts

    def test_each_picture_has_one_of_its_own(self, backbone, read):
        captions = (("a cat", "cat", "the cat"), ("a dog",))
        one = term(backbone, captions=captions)
        for step in range(12):
            read.clear()
            one.losses(step, generator_for(0, step))
            pictures = one.source.draw(4, step=step, generator=generator_for(0, step)).prompt_index.tolist()
            assert all(text in captions[picture] for text, picture in zip(read, pictures, strict=True))

    def test_all_of_them_come_up(self, backbone, read):
        one = term(backbone, captions=(("a cat", "cat", "the cat"), ("a dog",)))
        for step in range(12):
            one.losses(step, generator_for(0, step))
        assert set(read) == {"a cat", "cat", "the cat", "a dog"}

    @pytest.mark.parametrize(("dropout", "share"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
    def test_a_share_is_empty(self, backbone, read, dropout, share):
        one = term(backbone, captions=(("a cat",), ("a dog",)), dropout=dropout)
        for step in range(30):
            one.losses(step, generator_for(0, step))
        assert read.count("") / len(read) == pytest.approx(share, abs=0.1)
