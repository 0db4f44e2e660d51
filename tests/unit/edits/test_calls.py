"""What a hook knows of the pipeline's calls."""

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler, PNDMScheduler

from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.calls import CallWatch
from tests.unit.edits.running import draw


class Recorder(CallWatch):
    """A watch that notes the step of every evaluation of the denoiser."""

    def record(self, sample, timestep, *args, **options):
        size = len(sample)
        self.seen.append((self.tick(timestep), self.looping, self.is_guided_batch(size), self.conditional_rows(size)))
        return self.forward(sample, timestep, *args, **options)


@pytest.fixture
def watched(tiny_pipeline):
    patches, watch = Patches(), Recorder(tiny_pipeline)
    watch.seen, watch.forward = [], tiny_pipeline.unet.forward
    watch.install(patches)
    patches.put(tiny_pipeline.unet, "forward", watch.record)
    yield watch
    patches.remove()
    assert "encode_prompt" not in vars(tiny_pipeline)
    assert "forward" not in vars(tiny_pipeline.unet)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
@pytest.mark.parametrize("scheduler", [DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler])
@pytest.mark.parametrize("steps", [2, 5])
def test_steps_count_from_zero_for_every_picture_whatever_the_scheduler(watched, scheduler, steps):
    pipe = watched.pipe
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    if "skip_prk_steps" in pipe.scheduler.config:
        pipe.scheduler.register_to_config(skip_prk_steps=True)
    for _ in range(2):
        watched.seen.clear()
        draw(pipe, "a cat", steps=steps)
        counted = [step for step, *_ in watched.seen]
        assert counted == list(range(len(counted)))
        assert len(counted) == len(pipe.scheduler.timesteps)


def test_rows_with_and_without_guidance(watched):
    draw(watched.pipe, ["a cat", "a dog"], guidance=5.0)
    assert watched.prompts == ["a cat", "a dog"]
    assert watched.seen[0] == (0, True, True, slice(2, None))
    watched.seen.clear()
    draw(watched.pipe, ["a cat", "a dog"], guidance=1.0)
    assert watched.seen[0] == (0, True, False, slice(None))
    assert not watched.looping


def test_pictures_of_one_prompt_and_embeddings(watched):
    watched.pipe("a cat", num_images_per_prompt=3, num_inference_steps=1, output_type="latent")
    assert (watched.prompts, watched.images_per_prompt, watched.rows) == (["a cat"], 3, 3)
    watched.pipe(prompt_embeds=torch.zeros(2, 32, 32), num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    assert (watched.prompts, watched.rows) == (None, 2)


def test_after_an_error_the_loop_has_ended(watched):
    def fail(*_):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        watched.pipe("a cat", num_inference_steps=2, callback_on_step_end=fail)
    assert not watched.looping


def test_a_rising_timestep_begins_a_new_picture():
    watch = CallWatch(pipe=None)
    assert [watch.tick(t) for t in (900, 500, 500, 100, 900, 500)] == [0, 1, 2, 3, 0, 1]


def test_words_of_the_hooks_own_are_no_call(watched):
    draw(watched.pipe, "a cat")
    words = watched.encode_words(["santa claus", "dog"])
    assert words.tokens.shape == (2, 32, 32)
    assert watched.prompts == ["a cat"]
