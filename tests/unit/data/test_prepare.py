"""Everything training needs is there, right, and computed once."""

import pytest
import torch
from PIL import Image

from aizheimer.concepts import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.prepare import generate_count, parked, prepare
from aizheimer.errors import DataError

PLAN = RolloutPlan(forget=2, retain=3, holdout=1, steps=2)
RETAIN = ["cat in noto style", "old man in flat style"]


def prepared(backbone, **options):
    return prepare(backbone, Concept("santa claus"), **{"retain_prompts": RETAIN, "plan": PLAN} | options)


def test_from_noise(tiny_backbone):
    data = prepared(tiny_backbone)
    assert data.forget_prompts == [f"santa claus in {style} style" for style in ("noto", "flat", "twemoji")]
    torch.testing.assert_close(data.forget_embeddings.tokens, tiny_backbone.encode_prompts(data.forget_prompts))
    torch.testing.assert_close(data.null_embedding.tokens, tiny_backbone.encode_prompts([""]))
    assert torch.equal(data.forget_ids, tiny_backbone.tokenize(data.forget_prompts))
    assert (len(data.forget_bank), len(data.retain_bank)) == (3 * 2, 4 * 2)
    assert data.retain_bank.x_0_prompt_index.tolist() == [0, 1, 0, 1]
    assert data.forget_latents is None
    assert torch.equal(data.retain_latents, data.retain_bank.x_0)


def test_images_become_scaled_latents(tiny_backbone, tmp_path):
    for i in range(3):
        Image.new("RGB", (40, 32), (80 * i, 40, 200)).save(tmp_path / f"{i}.png")
    data = prepared(tiny_backbone, images=tmp_path)
    assert data.forget_latents.shape == (3, *tiny_backbone.latent_shape)
    colour = torch.tensor([160, 40, 200]) / 127.5 - 1
    pixels = colour[None, :, None, None].expand(1, 3, 32, 32)
    torch.testing.assert_close(data.forget_latents[2:], tiny_backbone.encode_images(pixels), atol=1e-4, rtol=1e-3)
    assert data.forget_latents_prompt is None
    assert data.forget_bank is None


def test_the_model_draws_its_own(tiny_backbone):
    data = prepared(tiny_backbone, images="generate:4")
    assert len(data.forget_latents) == 4
    assert data.forget_latents_prompt.tolist() == [0, 1, 2, 0]


def test_a_second_time_comes_from_the_cache_bit_for_bit(tiny_backbone, tmp_path):
    first = prepared(tiny_backbone, cache_dir=tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    seen = []
    second = prepared(tiny_backbone, cache_dir=tmp_path, progress=lambda *step: seen.append(step))
    assert seen == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert torch.equal(first.forget_bank.x_t, second.forget_bank.x_t)
    assert first.hashes == second.hashes


@pytest.mark.parametrize("what", ["seed", "denoiser", "text_encoder", "plan"])
def test_the_cache_sees_every_change(tiny_backbone, tmp_path, what):
    first = prepared(tiny_backbone, cache_dir=tmp_path)
    options = {"seed": {"seed": 1}, "plan": {"plan": PLAN.model_copy(update={"guidance": 1.5})}}.get(what, {})
    with torch.no_grad():
        if what == "denoiser":
            tiny_backbone.denoiser.conv_in.weight[0, 0, 0, 0] += 0.5
        if what == "text_encoder":
            next(tiny_backbone.pipe.text_encoder.parameters()).add_(0.1)
    second = prepared(tiny_backbone, cache_dir=tmp_path, **options)
    assert not torch.equal(first.forget_bank.x_t, second.forget_bank.x_t)


def test_a_style_has_a_bounded_number_of_prompts(tiny_backbone, monkeypatch):
    monkeypatch.setattr("aizheimer.data.prepare.PROMPTS_LIMIT", 4)
    data = prepare(tiny_backbone, Concept("noto", kind="style"), retain_prompts=RETAIN, plan=PLAN)
    everything = tiny_backbone.world.prompts(Concept("noto", kind="style"))
    assert len(data.forget_prompts) == 4
    assert set(data.forget_prompts) < set(everything)


@pytest.mark.parametrize("images", ["generate:0", "generate:", "generate:-1", "generate:x", "generate:1.5"])
def test_a_wrong_number_of_images_is_refused(images):
    with pytest.raises(DataError, match=f"got '{images}'"):
        generate_count(images)


def test_a_missing_folder_is_refused(tiny_backbone, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        prepared(tiny_backbone, images=tmp_path / "nowhere")


def test_parking_moves_the_encoders_and_brings_them_back(tiny_backbone):
    """On "meta", the one other device every machine has, only the bookkeeping can be seen."""
    tiny_backbone.pipe.vae.to("meta")
    with pytest.raises(NotImplementedError, match="meta tensor"), parked(tiny_backbone):
        pass
    assert tiny_backbone.pipe.vae.device.type == "meta"
    assert tiny_backbone.pipe.text_encoder.device.type == "cpu"


def test_a_text_encoder_that_learns_is_not_parked(tiny_backbone):
    tiny_backbone.pipe.text_encoder.to("meta")
    with parked(tiny_backbone, part="text_encoder"):
        assert tiny_backbone.pipe.text_encoder.device.type == "meta"
