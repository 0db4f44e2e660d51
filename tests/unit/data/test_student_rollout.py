"""Rollouts of the model that is being edited, and latents of nothing."""

import itertools

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.latents import rollout_timesteps
from aizheimer.data.sources import StudentRolloutSource, noise_only
from aizheimer.errors import DataError
from tests.tiny import tiny_pipeline, tiny_world


def plain_rollout(backbone, x, times, embedding, null, guidance):
    """DDIM one picture at a time, from the formulas."""
    alphas = backbone.schedule.alphas_cumprod
    for now, later in itertools.pairwise(times):
        t = torch.tensor([now])
        c, n = backbone.predict(x, t, embedding), backbone.predict(x, t, null)
        e = n + guidance * (c - n)
        if backbone.prediction_type == "v_prediction":
            e = alphas[now].sqrt() * e + (1 - alphas[now]).sqrt() * x
        x_0 = (x - (1 - alphas[now]).sqrt() * e) / alphas[now].sqrt()
        x = alphas[later].sqrt() * x_0 + (1 - alphas[later]).sqrt() * e
    return x


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_each_row_is_a_rollout_that_stopped(prediction_type):
    backbone = backbone_for(tiny_pipeline(prediction_type=prediction_type), world=tiny_world())
    embeddings, null = backbone.encode_prompts(["cat", "dog"]), backbone.encode_prompts([""])
    source = StudentRolloutSource(backbone=backbone, embeddings=embeddings, null_embedding=null, steps=4, guidance=3.0)
    draw = source.draw(5, step=1, generator=generator_for(0, "rollout"))
    generator = generator_for(0, "rollout")
    prompts = torch.randint(2, (5,), generator=generator)
    stops = torch.randint(4, (5,), generator=generator)
    times = rollout_timesteps(5, 4, backbone.schedule, generator=generator)
    noise = torch.randn(5, *backbone.latent_shape, generator=generator)
    assert torch.equal(draw.prompt_index, prompts)
    assert len(set(stops.tolist())) > 2
    for i in range(5):
        row = times[i, : stops[i] + 1].tolist()
        assert draw.t[i] == row[-1]
        expected = plain_rollout(backbone, noise[i : i + 1], row, embeddings[prompts[i] : prompts[i] + 1], null, 3.0)
        torch.testing.assert_close(draw.x_t[i : i + 1], expected, rtol=1e-3, atol=1e-3)


def test_a_rollout_of_nothing_is_refused():
    backbone = backbone_for(tiny_pipeline(), world=tiny_world())
    null = backbone.encode_prompts([""])
    with pytest.raises(DataError, match="0 steps"):
        StudentRolloutSource(backbone=backbone, embeddings=null, null_embedding=null, steps=0)


def test_noise_only_is_the_forward_process_of_a_zero_image():
    backbone = backbone_for(tiny_pipeline(), world=tiny_world())
    draw = noise_only(backbone, prompts=3).draw(64, step=1, generator=generator_for(0, "noise"))
    sigma = (1 - backbone.schedule.alphas_cumprod[draw.t]).sqrt()
    torch.testing.assert_close(draw.x_t, sigma[:, None, None, None] * draw.target)
    assert set(draw.prompt_index.tolist()) == {0, 1, 2}
