"""The filter's pictures, and its count, with a judge of colours."""

import numpy as np
import pytest
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.detectors import NO_PICTURE
from aizheimer.detectors.base import see
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.edits import load_edit
from aizheimer.edits.hooks.judge_filter import JudgeFilterHook, judge_sha256
from aizheimer.errors import EditError, ModelError
from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.methods.judge_filter import JudgeFilter
from tests.tiny import tiny_world
from tests.unit.detectors.builders import flat_pictures, save_clip, save_colour_judge
from tests.unit.edits.running import draw, edit_of, same_state, state

NAMES = ("santa claus", "cat", "dog")  # what red, green and blue stand for
CONCEPT = Concept("santa claus")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return save_colour_judge(tmp_path_factory.mktemp("judges") / "object", names=NAMES)


@pytest.fixture
def edit(tiny_backbone, judge):
    return JudgeFilter(judge=str(judge)).unlearn(tiny_backbone, CONCEPT)


def finish(pipe, colours, **options):
    """Let pictures of these colours through where the pipeline hands out what it decoded."""
    return pipe.image_processor.postprocess(flat_pictures(colours), **options)


class TestFilter:
    def test_what_the_judge_names_is_grey_and_the_rest_is_untouched(self, tiny_pipeline, edit):
        colours = ["red", "green", "red", "blue"]
        wanted = finish(tiny_pipeline, colours, output_type="np")
        with edit.applied(tiny_pipeline):
            found = finish(tiny_pipeline, colours, output_type="np")
        assert np.allclose(found[[0, 2]], 128 / 255, atol=1e-6)
        assert np.array_equal(found[[1, 3]], wanted[[1, 3]])
        assert (edit.hook.count.seen, edit.hook.count.blocked, edit.hook.count.rate) == (4, 2, 0.5)
        edit.hook.count.reset()
        assert (edit.hook.count.seen, edit.hook.count.rate) == (0, 0.0)

    @pytest.mark.parametrize("kind", ["pil", "pt", "np"])
    def test_every_kind_of_output(self, tiny_pipeline, edit, kind):
        with edit.applied(tiny_pipeline):
            (grey,) = finish(tiny_pipeline, ["red"], output_type=kind)
            (green,) = finish(tiny_pipeline, ["green"], output_type=kind)
        assert len(np.unique(np.asarray(grey))) == 1
        assert len(np.unique(np.asarray(green))) > 1

    def test_latents_are_no_pictures(self, tiny_pipeline, edit):
        with edit.applied(tiny_pipeline):
            latents = tiny_pipeline("a cat", num_inference_steps=1, output_type="latent").images
        assert latents.shape == (1, 4, 8, 8)
        assert edit.hook.count.seen == 0

    def test_beside_a_safety_checker(self, tiny_pipeline, edit):
        with edit.applied(tiny_pipeline):
            found = tiny_pipeline.image_processor.postprocess(
                flat_pictures(["red", "red"]) / 2 + 0.5, output_type="np", do_denormalize=[False, False]
            )
        assert np.allclose(found, 128 / 255, atol=1e-6)

    def test_what_is_blocked_is_a_picture_to_a_judge(self, tiny_pipeline, edit, judge):
        """A black one is not: that is what a model draws whose numbers are none, and it never counts as forgotten."""
        with edit.applied(tiny_pipeline):
            blocked = np.stack([np.asarray(p) for p in finish(tiny_pipeline, ["red", "red"], output_type="pil")])
        assert NO_PICTURE not in see(ImageJudge.load(judge), blocked).labels
        assert see(ImageJudge.load(judge), np.zeros_like(blocked)).labels == [NO_PICTURE, NO_PICTURE]

    def test_a_threshold_blocks_by_probability(self, tiny_backbone, judge):
        never, always = (JudgeFilter(judge=str(judge), threshold=t).unlearn(tiny_backbone, CONCEPT) for t in (1, 0))
        for edit, blocked in ((never, 0), (always, 3)):
            with edit.applied(tiny_backbone.pipe):
                finish(tiny_backbone.pipe, ["red", "green", "blue"], output_type="np")
            assert edit.hook.count.blocked == blocked

    def test_it_acts_and_counts_within_generate(self, tiny_pipeline, tiny_backbone, judge):
        edit = JudgeFilter(judge=str(judge), threshold=0).unlearn(tiny_backbone, CONCEPT)
        jobs = [PromptJob("a cat", seed) for seed in range(3)]
        with edit.applied(tiny_pipeline):
            pictures = generate(tiny_pipeline, jobs, steps=1, batch_size=2, cache_dir=False)
        assert (pictures == 128).all()
        assert (edit.hook.count.seen, edit.hook.count.blocked) == (3, 3)

    def test_removed_it_leaves_nothing(self, tiny_pipeline, edit):
        before = state(tiny_pipeline)
        with edit.applied(tiny_pipeline):
            assert not same_state(state(tiny_pipeline), before)
        assert same_state(state(tiny_pipeline), before)

    def test_saved_and_loaded_it_counts_anew(self, tiny_pipeline, edit, tmp_path):
        edit.save(tmp_path)
        found = load_edit(tmp_path)
        assert found.hook == edit.hook
        with found.applied(tiny_pipeline):
            draw(tiny_pipeline, "a cat", steps=1)
        assert (found.hook.count.seen, edit.hook.count.seen) == (1, 0)


class TestJudges:
    def test_the_worlds_own(self, tiny_folder, judge):
        import dataclasses
        import shutil

        from aizheimer.backbones.base import load_pipeline

        shutil.copytree(judge, tiny_folder.parent / "judges" / "object")
        world = dataclasses.replace(tiny_world(), judges={"object": "judges/object"})
        (tiny_folder.parent / "world.json").write_text(world.to_json())
        backbone = backbone_for(load_pipeline(tiny_folder))
        edit = JudgeFilter().unlearn(backbone, CONCEPT)
        assert edit.hook.folder == ""
        with edit.applied(backbone.pipe):
            assert finish(backbone.pipe, ["red"], output_type="np") == pytest.approx(128 / 255)

    def test_a_clip_chooses_among_the_worlds_words(self, tiny_backbone, tmp_path):
        folder = save_clip(tmp_path / "clip")
        edit = JudgeFilter(judge=str(folder)).unlearn(tiny_backbone, Concept("fox"))
        assert edit.hook.classes[-1] == "fox"
        assert len(edit.hook.classes) == len(tiny_backbone.world.vocabulary) + 1
        with edit.applied(tiny_backbone.pipe):
            finish(tiny_backbone.pipe, ["red", "green"], output_type="np")
        assert edit.hook.count.seen == 2

    def test_none_one_that_is_blind_and_one_that_is_gone(self, tiny_backbone, judge, tmp_path):
        with pytest.raises(ModelError, match="brings none; give the folder"):
            JudgeFilter().unlearn(tiny_backbone, CONCEPT)
        with pytest.raises(ModelError, match="got 'grapes', which it cannot see"):
            JudgeFilter(judge=str(judge)).unlearn(tiny_backbone, Concept("grapes"))
        with pytest.raises(ModelError, match=r"no config\.json there"):
            JudgeFilter(judge=str(tmp_path)).unlearn(tiny_backbone, CONCEPT)

    def test_another_judge_in_its_place_is_noticed(self, tiny_pipeline, judge):
        hook = JudgeFilterHook("santa claus", "object", "0" * 64, folder=str(judge))
        with pytest.raises(EditError, match="not the one this edit was made with"):
            edit_of(tiny_pipeline, hook).apply_to(tiny_pipeline)
        with pytest.raises(EditError, match="brings no judge of objects"):
            edit_of(tiny_pipeline, JudgeFilterHook("santa claus", "object", judge_sha256(judge))).apply_to(
                tiny_pipeline
            )

    def test_broken_pictures_are_judged_too(self, tiny_pipeline, edit):
        with edit.applied(tiny_pipeline):
            tiny_pipeline.image_processor.postprocess(torch.full((1, 3, 32, 32), float("nan")), output_type="pt")
        assert edit.hook.count.seen == 1
