import numpy as np
import pytest
import torch

from aizheimer.errors import ConceptError
from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.modules.attention import attention_probe, mass
from aizheimer.reports.heatmaps import heatmap_pair, overlay, target_heatmaps, word_heatmaps
from tests.unit.evaluation.builders import WordEdit

PROMPT, CONCEPT = "santa claus in noto style", "santa claus"


class TestTargetHeatmaps:
    def test_picture_is_the_one_the_generator_draws(self, tiny_backbone):
        _, picture = target_heatmaps(tiny_backbone, PROMPT, CONCEPT, 5, steps=3)
        wanted = generate(
            tiny_backbone.pipe, [PromptJob(PROMPT, 5)], steps=3, guidance=tiny_backbone.world.guidance, cache_dir=False
        )[0]
        assert np.abs(picture.astype(int) - wanted).max() <= 1

    @pytest.mark.parametrize("guidance", [0.0, 1.0, 5.0])
    def test_map_is_a_share_that_varies_over_the_picture(self, tiny_backbone, guidance):
        heat, picture = target_heatmaps(tiny_backbone, PROMPT, CONCEPT, 0, steps=2, guidance=guidance)
        assert heat.shape == picture.shape[:2] == (32, 32)
        assert heat.dtype == np.float32
        assert 0 <= heat.min() < heat.max() <= 1

    def test_mean_is_the_attention_mass_of_that_step(self, tiny_backbone):
        steps = 4
        heat, _ = target_heatmaps(tiny_backbone, PROMPT, CONCEPT, 0, steps=steps, guidance=1.0)
        seen = []
        forward = tiny_backbone.denoiser.forward
        columns = tiny_backbone.token_columns([PROMPT], CONCEPT, policy="concept")
        with attention_probe(tiny_backbone.denoiser, list(tiny_backbone.attention_modules()), columns) as probe:

            def watch(*args, **kwargs):
                output = forward(*args, **kwargs)
                seen.append(float(torch.stack(list(mass(probe.maps).values())).mean()))
                return output

            tiny_backbone.denoiser.forward = watch
            generate(tiny_backbone.pipe, [PromptJob(PROMPT, 0)], steps=steps, guidance=1.0, cache_dir=False)
            del tiny_backbone.denoiser.forward
        assert len(seen) == steps
        assert float(heat.mean()) == pytest.approx(seen[steps // 2], abs=1e-3)
        assert abs(seen[0] - seen[steps // 2]) > 1e-5

    def test_leaves_the_pipeline_as_it_was(self, tiny_backbone):
        processors = dict(tiny_backbone.denoiser.attn_processors)
        scheduler = tiny_backbone.pipe.scheduler
        target_heatmaps(tiny_backbone, PROMPT, CONCEPT, 0, steps=2)
        assert all(tiny_backbone.denoiser.attn_processors[name] is p for name, p in processors.items())
        assert tiny_backbone.pipe.scheduler is scheduler

    def test_the_prompt_must_name_the_concept(self, tiny_backbone):
        with pytest.raises(ConceptError):
            target_heatmaps(tiny_backbone, "a cat", CONCEPT, 0)


class TestPair:
    def test_an_edit_of_the_word_moves_the_attention(self, tiny_backbone):
        pair = heatmap_pair(tiny_backbone, WordEdit("santa"), prompt=PROMPT, concept=CONCEPT, seed=0, steps=2)
        assert not np.allclose(pair.original_heat, pair.edited_heat)
        assert not np.array_equal(pair.original, pair.edited)
        assert pair.peak == max(pair.original_heat.max(), pair.edited_heat.max())

    def test_no_edit_no_difference(self, tiny_backbone):
        pair = heatmap_pair(
            tiny_backbone, WordEdit("santa", scale=0.0), prompt=PROMPT, concept=CONCEPT, seed=0, steps=2
        )
        assert np.array_equal(pair.original_heat, pair.edited_heat)
        assert np.array_equal(pair.original, pair.edited)


class TestOverlay:
    def test_bright_where_the_attention_is(self):
        heat = np.zeros((8, 8))
        heat[:, 6:] = 0.2
        pixels = np.asarray(overlay(np.full((8, 8, 3), 128, np.uint8), heat, peak=0.2, edge=64)).astype(int)
        assert pixels.shape == (64, 64, 3)
        assert pixels[:, 60].mean() > pixels[:, 10].mean() + 60

    def test_both_maps_have_one_scale(self):
        picture = np.full((8, 8, 3), 128, np.uint8)
        half = np.asarray(overlay(picture, np.full((8, 8), 0.1), peak=0.2))
        full = np.asarray(overlay(picture, np.full((8, 8), 0.1), peak=0.1))
        assert full.mean() > half.mean()

    def test_no_attention_at_all(self):
        assert np.asarray(overlay(np.full((8, 8, 3), 128, np.uint8), np.zeros((8, 8)), peak=0.0)).std() < 1


def test_words_share_one_drawing_and_have_the_maps_of_each_alone(tiny_backbone):
    words = ["santa claus", "noto"]
    maps, picture = word_heatmaps(tiny_backbone, PROMPT, words=words, seed=2, steps=2)
    assert maps.shape == (2, 32, 32)
    for word, found in zip(words, maps, strict=True):
        alone, same = target_heatmaps(tiny_backbone, PROMPT, word, 2, steps=2)
        assert np.abs(found - alone).max() < 1e-4
        assert np.abs(picture.astype(int) - same).max() <= 1
    assert np.abs(maps[0] - maps[1]).max() > 1e-3
    with pytest.raises(ConceptError):
        word_heatmaps(tiny_backbone, PROMPT, words=["santa claus", "cat"], seed=2, steps=2)
