"""Trajectories that are kept are the fresh ones, to the format they are kept in, and are denoised once."""

import sys
from pathlib import Path

import pytest
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.backbones.counting import counted
from aizheimer.data.cache import TensorCache
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.sources import BankSource, StudentRolloutSource
from aizheimer.data.trajectories import kept_trajectories
from tests.tiny import tiny_pipeline, tiny_world

PROMPTS = ["santa claus in noto style", "cat in flat style"]
PLAN = RolloutPlan(steps=3, picture_steps=2, guidance=3.0)
HALF = PLAN.model_copy(update={"keep": "float16"})
INDEX = torch.tensor([0, 1, 0])


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


def kept(backbone, plan, folder=None, **options):
    options = {"name": "forget", "seed": 0, "cache": TensorCache(folder), "prompt_index": INDEX} | options
    return kept_trajectories(
        backbone, backbone.condition(PROMPTS), null_embedding=backbone.condition([""]), plan=plan, **options
    )


def test_half_precision_is_the_fresh_trajectory_rounded(backbone, tmp_path):
    full, half = kept(backbone, PLAN), kept(backbone, HALF, tmp_path)
    assert torch.equal(half.t, full.t)
    for name in ("x_t", "prediction", "null_prediction", "x_0"):
        assert getattr(half, name).dtype == torch.float16
        assert torch.equal(getattr(half, name), getattr(full, name).half())


def test_the_latents_are_those_a_rollout_per_step_meets(backbone, tmp_path):
    """From the same noise, through the same timesteps, one step of a rollout source after the other."""
    half = kept(backbone, HALF, tmp_path)
    source = StudentRolloutSource(
        backbone=backbone,
        embeddings=backbone.condition(PROMPTS),
        null_embedding=backbone.condition([""]),
        steps=3,
        guidance=3.0,
    )
    kept_x, times = half.x_t.unflatten(0, (3, 3)).float(), half.t.reshape(3, 3)
    x_t = kept(backbone, PLAN).x_t[::3].clone()
    for step in range(2):
        with torch.no_grad():
            x_t = source._advanced(x_t, times[:, step : step + 2], INDEX)
        torch.testing.assert_close(kept_x[:, step + 1], x_t, rtol=2**-10, atol=1e-4)


def test_they_are_denoised_once_and_shared_by_whoever_asks_alike(backbone, tmp_path):
    with counted(backbone) as first:
        made = kept(backbone, HALF, tmp_path)
    with counted(backbone) as second:
        read = kept(backbone, HALF, tmp_path)
    assert (first.latents, second.latents) == (3 * 3 * 2, 0)
    assert all(torch.equal(tensor, read.tensors()[name]) for name, tensor in made.tensors().items())
    for other in (PLAN, HALF.model_copy(update={"guidance": 2.0})):
        with counted(backbone) as again:
            kept(backbone, other, tmp_path)
        assert again.latents > 0


def test_latents_of_another_size_are_others(tmp_path):
    """The size is in the UNet's configuration alone: the weights are the same."""
    backbone = backbone_for(tiny_pipeline(), world=tiny_world())
    small = kept(backbone, PLAN, tmp_path)
    backbone.denoiser.register_to_config(sample_size=16)
    large = kept(backbone, PLAN, tmp_path)
    assert small.x_t.shape[1:] == (4, 8, 8)
    assert large.x_t.shape[1:] == (4, 16, 16)


def test_pictures_take_their_own_steps_and_are_kept_whole(backbone, tmp_path):
    bank = kept(backbone, HALF, tmp_path, pictures=True)
    assert len(bank) == 3 * 2
    assert bank.x_0.dtype == torch.float32


def test_drawn_batches_are_in_the_denoisers_format(backbone, tmp_path):
    bank = kept(backbone, HALF, tmp_path)
    source = BankSource.of(bank, target=bank.prediction, device=torch.device("cpu"))
    draw = source.draw(9, step=1, generator=torch.Generator().manual_seed(0))
    assert draw.x_t.dtype == draw.target.dtype == torch.float32
    assert sorted(draw.x_t.flatten(1).sum(1).tolist()) == sorted(bank.x_t.float().flatten(1).sum(1).tolist())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the table of mappings of Linux")
def test_what_is_kept_is_mapped_and_parts_of_it_are_views(backbone, tmp_path):
    for bank in (kept(backbone, HALF, tmp_path), kept(backbone, HALF, tmp_path)):
        train, held = bank.split(1)
        file = next(tmp_path.glob("*.safetensors"))
        ranges = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(file) in line]
        edges = [[int(end, 16) for end in span.split("-")] for span in ranges]
        for tensor in (bank.x_t, train.x_t, held.prediction, held.x_0):
            assert any(start <= tensor.data_ptr() < end for start, end in edges)
