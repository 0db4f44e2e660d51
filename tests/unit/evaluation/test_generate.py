import copy

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler

from aizheimer.errors import InputError
from aizheimer.evaluation.generate import PromptJob, generate, image_size, initial_latents, sampling
from tests.tiny_families import tiny_flux

JOBS = [PromptJob("santa claus in noto style", 0), PromptJob("a cat", 3), PromptJob("a cat", 4)]
OPTIONS = {"steps": 2, "cache_dir": False}


def levels(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


class TestPictures:
    def test_equals_the_pipeline_called_by_hand(self, tiny_pipeline):
        ours = generate(tiny_pipeline, JOBS[1:2], guidance=5.0, **OPTIONS)
        generator = torch.Generator().manual_seed(3)
        by_hand = tiny_pipeline(
            "a cat", generator=generator, num_inference_steps=2, guidance_scale=5.0, output_type="np"
        ).images
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, (by_hand * 255).round().astype(np.uint8))

    def test_the_batch_does_not_matter(self, tiny_pipeline):
        together = generate(tiny_pipeline, JOBS, batch_size=3, **OPTIONS)
        alone = generate(tiny_pipeline, JOBS, batch_size=1, **OPTIONS)
        backwards = generate(tiny_pipeline, JOBS[::-1], batch_size=2, **OPTIONS)[::-1]
        assert levels(together, alone) <= 1
        assert levels(together, backwards) <= 1

    def test_bfloat16_draws_nearly_the_same_and_is_kept_apart(self, tiny_pipeline, tmp_path):
        options = {"steps": 2, "cache_dir": tmp_path, "guidance": 5.0}
        exact = generate(tiny_pipeline, JOBS, **options)
        fast = generate(tiny_pipeline, JOBS, precision="bfloat16", **options)
        assert 0 < levels(exact, fast) < 60
        assert np.abs(exact.astype(int) - fast).mean() < 4
        assert np.array_equal(generate(tiny_pipeline, JOBS, **options), exact)
        assert next(tiny_pipeline.unet.parameters()).dtype == torch.float32

    def test_seeds_and_prompts_matter(self, tiny_pipeline):
        pictures = generate(tiny_pipeline, [*JOBS, PromptJob("a tiger", 3)], **OPTIONS)
        assert levels(pictures[1], pictures[2]) > 10
        assert levels(pictures[1], pictures[3]) > 0

    def test_a_repeated_job_is_drawn_once(self, tiny_pipeline):
        calls = []
        pictures = generate(tiny_pipeline, [JOBS[0]] * 5, progress=lambda *n: calls.append(n), **OPTIONS)
        assert (pictures == pictures[0]).all()
        assert calls == [(0, 5), (5, 5)]

    def test_the_global_generator_is_not_read_nor_moved(self, tiny_pipeline):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = generate(tiny_pipeline, JOBS[:1], **OPTIONS)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert np.array_equal(generate(tiny_pipeline, JOBS[:1], **OPTIONS), first)

    def test_whatever_the_scheduler_the_sampler_is_ddim(self, tiny_pipeline):
        wanted = generate(tiny_pipeline, JOBS[:1], **OPTIONS)
        tiny_pipeline.scheduler = DDPMScheduler.from_config(tiny_pipeline.scheduler.config)
        assert np.array_equal(generate(tiny_pipeline, JOBS[:1], **OPTIONS), wanted)

    def test_nan_becomes_a_picture_and_no_crash(self, tiny_pipeline):
        with torch.no_grad():
            tiny_pipeline.unet.conv_out.bias.fill_(float("nan"))
        assert generate(tiny_pipeline, JOBS[:1], **OPTIONS).max() == 0

    def test_a_picture_that_is_a_number_in_places_only_is_black_as_a_whole(self, tiny_pipeline, monkeypatch):
        """So it is told from one that was drawn; the other picture of its batch stays."""
        real = tiny_pipeline.image_processor.postprocess

        def spoil(*args, **options):
            images = real(*args, **options)
            images[0, 3, 3, 0] = np.nan
            return images

        monkeypatch.setattr(tiny_pipeline.image_processor, "postprocess", spoil)
        first, second = generate(tiny_pipeline, JOBS[:2], **OPTIONS)
        assert first.max() == 0 < second.max()


class TestSampling:
    def test_everything_is_put_back_even_after_an_error(self, tiny_pipeline):
        scheduler, config = tiny_pipeline.scheduler, copy.deepcopy(dict(tiny_pipeline.config))
        tiny_pipeline.set_progress_bar_config(desc="mine")

        def fail_inside():
            with sampling(tiny_pipeline):
                assert tiny_pipeline.scheduler is not scheduler
                raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            fail_inside()
        assert tiny_pipeline.scheduler is scheduler
        assert dict(tiny_pipeline.config) == config
        assert tiny_pipeline._progress_bar_config == {"desc": "mine"}

    def test_a_safety_checker_paints_nothing_black(self, tiny_pipeline):
        class Prude(torch.nn.Module):
            dtype = torch.float32

        wanted = generate(tiny_pipeline, JOBS[:1], **OPTIONS)
        checker = Prude()
        tiny_pipeline.safety_checker = checker
        assert np.array_equal(generate(tiny_pipeline, JOBS[:1], **OPTIONS), wanted)
        assert tiny_pipeline.safety_checker is checker

    def test_latents_are_not_clipped_for_a_scheduler_that_never_did(self, tiny_pipeline):
        config = {k: v for k, v in tiny_pipeline.scheduler.config.items() if k != "clip_sample"}
        pndm = PNDMScheduler.from_config(config)
        assert "clip_sample" not in pndm.config or not pndm.config.clip_sample
        tiny_pipeline.scheduler = pndm
        with sampling(tiny_pipeline):
            assert isinstance(tiny_pipeline.scheduler, DDIMScheduler)
            assert tiny_pipeline.scheduler.config.clip_sample is False

    def test_latents_come_from_each_seed(self, tiny_pipeline):
        both = initial_latents(tiny_pipeline, [7, 8])
        assert both.shape == (2, 4, 8, 8)
        assert torch.equal(both[1:], initial_latents(tiny_pipeline, [8]))
        assert image_size(tiny_pipeline) == (32, 32)


class TestCache:
    def test_a_second_call_draws_nothing(self, tiny_pipeline, tmp_path, monkeypatch):
        first = generate(tiny_pipeline, JOBS, steps=2, cache_dir=tmp_path)

        def refuse(*args, **kwargs):
            raise RuntimeError("drawn again")

        monkeypatch.setattr(tiny_pipeline.unet, "forward", refuse)
        assert np.array_equal(generate(tiny_pipeline, JOBS[::-1], steps=2, cache_dir=tmp_path)[::-1], first)

    def test_another_number_of_text_rows_is_another_entry(self, tmp_path):
        pipe = tiny_flux(guided=False)
        for limit in (32, 512):
            pipe.tokenizer_2.model_max_length = limit
            generate(pipe, JOBS[:1], steps=1, cache_dir=tmp_path)
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2

    @pytest.mark.parametrize("change", [{"steps": 3}, {"guidance": 2.0}, {"key": "hook"}])
    def test_other_settings_are_other_entries(self, tiny_pipeline, tmp_path, change):
        generate(tiny_pipeline, JOBS[:1], steps=2, cache_dir=tmp_path)
        generate(tiny_pipeline, JOBS[:1], **{"steps": 2, "cache_dir": tmp_path, **change})
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2

    def test_changed_weights_are_other_entries(self, tiny_pipeline, tmp_path):
        before = generate(tiny_pipeline, JOBS[:1], steps=2, cache_dir=tmp_path)
        with torch.no_grad():
            tiny_pipeline.unet.conv_out.bias.add_(0.5)
        assert levels(generate(tiny_pipeline, JOBS[:1], steps=2, cache_dir=tmp_path), before) > 2

    def test_a_corrupt_entry_is_drawn_again_and_replaced(self, tiny_pipeline, tmp_path):
        wanted = generate(tiny_pipeline, JOBS[:1], steps=2, cache_dir=tmp_path)
        (entry,) = tmp_path.rglob("*.safetensors")
        entry.write_bytes(b"nonsense")
        with pytest.warns(UserWarning, match=f"{entry.name} is damaged"):
            again = generate(tiny_pipeline, JOBS[:1], steps=2, cache_dir=tmp_path)
        assert np.array_equal(again, wanted)
        assert entry.stat().st_size > 100

    def test_goes_on_where_it_was_killed(self, tiny_pipeline, tmp_path, monkeypatch):
        class KilledError(Exception):
            pass

        def die(done, total):
            if done == 1:
                raise KilledError

        with pytest.raises(KilledError):
            generate(tiny_pipeline, JOBS, steps=2, batch_size=1, cache_dir=tmp_path, progress=die)
        calls = []
        generate(tiny_pipeline, JOBS, steps=2, batch_size=1, cache_dir=tmp_path, progress=lambda *n: calls.append(n))
        assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("jobs", "options", "word"),
    [
        ([], {}, "no prompts"),
        (JOBS, {"steps": -1}, "steps: got -1"),
        (JOBS, {"batch_size": 0}, "batch_size: got 0"),
        (JOBS, {"guidance": -0.1}, "guidance: got -0.1"),
        (JOBS, {"guidance": float("nan")}, "guidance: got nan"),
    ],
)
def test_bad_numbers(tiny_pipeline, jobs, options, word):
    with pytest.raises(InputError, match=word):
        generate(tiny_pipeline, jobs, cache_dir=False, **options)
