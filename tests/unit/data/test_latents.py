"""Rollouts follow diffusers' own sampler, and keep what they met on the way."""

import pytest
import torch
from diffusers import DDIMScheduler

from aizheimer.backbones.base import backbone_for
from aizheimer.data.latents import rollout_bank
from aizheimer.errors import DataError
from tests.tiny import tiny_pipeline, tiny_world

PROMPTS = ["santa claus in noto style", "cat in flat style", "red apple"]


def bank_of(backbone, prompts=PROMPTS, **options):
    options = {"steps": 3, "guidance": 3.0, "generator": torch.Generator().manual_seed(0)} | options
    return rollout_bank(backbone, prompts, **options)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_rollout_is_what_diffusers_ddim_does(prediction_type):
    pipe = tiny_pipeline(prediction_type=prediction_type)
    backbone = backbone_for(pipe, world=tiny_world())
    bank = bank_of(backbone, jitter=False, steps=4)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(4)
    sample = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    conditional, null = backbone.encode_prompts(PROMPTS), backbone.encode_prompts([""]).expand(3, -1, -1)
    for i, t in enumerate(scheduler.timesteps):
        rows = slice(i, None, 4)
        assert bank.t[rows].tolist() == [int(t)] * 3
        torch.testing.assert_close(bank.x_t[rows], sample, atol=2e-4, rtol=1e-3)
        with torch.no_grad():
            c, n = backbone.predict(sample, t, conditional), backbone.predict(sample, t, null)
        torch.testing.assert_close(bank.prediction[rows], c, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(bank.null_prediction[rows], n, atol=2e-4, rtol=1e-3)
        step = scheduler.step(n + 3.0 * (c - n), t, sample)
        sample = step.prev_sample
    torch.testing.assert_close(bank.x_0, step.pred_original_sample, atol=1e-3, rtol=1e-3)


def test_entries_name_their_prompt_and_trajectory(tiny_backbone):
    bank = bank_of(tiny_backbone)
    assert len(bank) == 9
    assert bank.prompt_index.tolist() == bank.trajectory.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert bank.x_0_prompt_index.tolist() == [0, 1, 2]
    embeddings = tiny_backbone.encode_prompts(PROMPTS)
    with torch.no_grad():
        again = tiny_backbone.predict(bank.x_t, bank.t, embeddings[bank.prompt_index])
    torch.testing.assert_close(again, bank.prediction, atol=1e-5, rtol=1e-4)


def test_timesteps_fall_inside_their_strata_and_differ(tiny_backbone):
    bank = bank_of(tiny_backbone, PROMPTS * 6, steps=5)
    times = bank.t.reshape(18, 5)
    assert (times[:, 0] == 999).all()
    for i in range(1, 5):
        assert ((times[:, i] < 1000 - 200 * i) & (times[:, i] >= 800 - 200 * i)).all()
        assert len(set(times[:, i].tolist())) > 9


def test_the_batch_size_does_not_matter(tiny_backbone):
    one, all_ = bank_of(tiny_backbone, batch_size=1), bank_of(tiny_backbone, batch_size=8)
    assert torch.equal(one.t, all_.t)
    torch.testing.assert_close(one.x_t, all_.x_t, atol=1e-4, rtol=1e-3)


def test_splitting_keeps_whole_trajectories(tiny_backbone):
    bank = bank_of(tiny_backbone)
    train, held = bank.split(1)
    assert (len(train), len(held), len(train.x_0), len(held.x_0)) == (6, 3, 2, 1)
    assert torch.equal(torch.cat([train.x_t, held.x_t]), bank.x_t)
    assert held.trajectory.tolist() == [0, 0, 0]
    assert held.x_0_prompt_index.tolist() == [2]
    assert torch.equal(held.x_0, bank.x_0[2:])


def test_progress_counts_trajectories(tiny_backbone):
    seen = []
    bank_of(tiny_backbone, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 1001}, {"prompts": []}])
def test_impossible_rollouts_are_refused(tiny_backbone, options):
    with pytest.raises(Exception, match=r"rollout: got|prompts: got") as error:
        bank_of(tiny_backbone, **options)
    assert isinstance(error.value, DataError) or options == {"prompts": []}
