"""Attacks that begin at a picture: where they begin, what they hold in place, and what they give back."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from pydantic import ValidationError

from aizheimer.attacks._drawing import draw_with, partial_start, sampler
from aizheimer.attacks._starts import draw_from, given_pictures, latents_of, other_concept
from aizheimer.attacks.img2img import NOISE_SEED, Img2Img, noised
from aizheimer.attacks.inpaint import Inpaint, holding, middle
from aizheimer.attacks.noise_inversion import NoiseInversion, inverted
from aizheimer.backbones.base import backbone_for
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import initial_latents
from tests.tiny import tiny_pipeline
from tests.unit.edits.test_edit import bits, same

ATTACKS = (Img2Img(curve=(0.5,)), Inpaint(), NoiseInversion())


def random_of(subject):
    return dataclasses.replace(subject, random=True)


class TestPartialSampler:
    def test_all_steps_are_the_usual_drawing(self, subject):
        start = partial_start(subject, 1.0)
        noise = initial_latents(subject.backbone.pipe, [job.seed for job in subject.jobs])
        assert np.array_equal(draw_from(subject, noise, start=start), subject.draw(subject.jobs))

    @pytest.mark.parametrize(("strength", "kept"), [(0.01, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
    def test_it_takes_the_last_steps_of_the_same_grid(self, subject, strength, kept):
        whole = sampler(subject, DDIMScheduler)
        whole.set_timesteps(4)
        start = partial_start(subject, strength)
        assert start.timesteps.tolist() == whole.timesteps[-kept:].tolist()
        assert start.share == kept / 4

    def test_going_on_from_the_middle_is_the_same_picture(self, subject):
        seen = {}

        def watch(step, latents, rows):
            seen[step] = latents.clone()
            return latents

        noise = initial_latents(subject.backbone.pipe, [job.seed for job in subject.jobs])
        whole = draw_from(subject, noise, start=partial_start(subject, 1.0), after_step=watch)
        rest = draw_from(subject, seen[1], start=partial_start(subject, 0.5))
        assert np.array_equal(rest, whole)

    @pytest.mark.parametrize("strength", [0, -0.1, 1.1])
    def test_a_strength_that_is_none(self, subject, strength):
        with pytest.raises(InputError, match="wanted more than 0 and at most 1"):
            partial_start(subject, strength)

    def test_the_batch_that_a_picture_travels_in_does_not_change_it(self, subject):
        from diffusers import DDPMScheduler

        single = dataclasses.replace(subject, settings=subject.settings.model_copy(update={"batch_size": 1}))
        together, alone = (
            draw_with(s, s.jobs, scheduler=sampler(s, DDPMScheduler)).astype(int) for s in (subject, single)
        )
        assert np.abs(together - alone).max() <= 2


class TestGivenPictures:
    def test_the_unedited_model_draws_them(self, subject):
        given = given_pictures(subject)
        assert not np.array_equal(given.images, subject.draw(subject.jobs))
        with subject.unedited():
            assert np.array_equal(given.images, subject.draw(subject.jobs))
        assert given.shows == "Santa Claus"

    def test_the_random_control_gets_another_concept_and_always_the_same(self, subject):
        given = given_pictures(random_of(subject))
        assert given.shows == other_concept(subject).target != "Santa Claus"
        assert all(given.shows in job.prompt for job in given.jobs)
        assert given.jobs == given_pictures(random_of(subject)).jobs

    def test_a_style_is_exchanged_for_a_style(self, subject):
        style = dataclasses.replace(subject, concept=Concept("noto", kind="style"))
        assert other_concept(style).target in {"flat", "twemoji"}
        assert other_concept(style).kind == "style"

    def test_a_world_of_one_concept(self, subject):
        world = dataclasses.replace(subject.backbone.world, vocabulary=subject.backbone.world.vocabulary[:1])
        lonely = dataclasses.replace(subject, backbone=dataclasses.replace(subject.backbone, world=world))
        assert isinstance(world, World)
        with pytest.raises(InputError, match="no other object than 'Santa Claus'"):
            other_concept(lonely)


class TestImg2Img:
    def test_the_start_is_the_picture_with_noise_of_its_own(self, subject):
        x_0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        start = partial_start(subject, 0.5)
        alpha = subject.backbone.pipe.scheduler.alphas_cumprod[int(start.t)]
        wanted = alpha.sqrt() * x_0 + (1 - alpha).sqrt() * noise
        assert torch.allclose(noised(subject, x_0, noise=noise, start=start), wanted)

    def test_its_noise_is_not_the_one_that_drew_the_picture(self, subject):
        seeds = {job.seed for job in subject.jobs}
        assert not seeds & {seed + NOISE_SEED for seed in seeds}

    def test_little_noise_leaves_the_picture_and_more_leaves_less(self, plain):
        given = given_pictures(plain)
        x_0 = latents_of(plain, given.images)
        noise = initial_latents(plain.backbone.pipe, [job.seed + NOISE_SEED for job in plain.jobs])
        decoded = plain.backbone.decode_latents(x_0)
        far = []
        for strength in (0.25, 1.0):
            start = partial_start(plain, strength)
            images = draw_from(plain, noised(plain, x_0, noise=noise, start=start), start=start)
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
            far.append(float((pixels - decoded).abs().mean()))
        assert far[0] < far[1]

    def test_the_strength_that_decides_is_the_one_whose_pictures_come_back(self, subject):
        found = Img2Img(strength=0.75, curve=(0.25, 0.75)).attack(subject)
        rows = found.details["strengths"]
        assert [(row["strength"], row["steps"]) for row in rows] == [(0.25, 1), (0.75, 3)]
        start = partial_start(subject, 0.75)
        given = given_pictures(subject)
        noise = initial_latents(subject.backbone.pipe, [job.seed + NOISE_SEED for job in subject.jobs])
        x_t = noised(subject, latents_of(subject, given.images), noise=noise, start=start)
        assert np.array_equal(found.images, draw_from(subject, x_t, start=start))
        assert found.queries == 2 * 3

    def test_the_rates_are_the_judges(self, subject):
        first = Img2Img(strength=0.5, curve=(1.0,)).attack(subject)
        assert {row["rate"] for row in first.details["strengths"]} == {0}
        subject.judge.learn(first.images[:1], ["Santa Claus"])
        again = Img2Img(strength=0.5, curve=(1.0,)).attack(subject)
        assert [row["rate"] for row in again.details["strengths"]] == [0.5, 0]

    @pytest.mark.parametrize("fields", [{"strength": 0}, {"strength": 1.5}, {"curve": [0.5, 2]}])
    def test_bad_strengths(self, fields):
        with pytest.raises(ValidationError):
            Img2Img.model_validate(fields)


class TestInpaint:
    def test_the_mask_is_a_centred_rectangle(self):
        assert middle((4, 6), side=0.5).int().tolist() == [
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ]
        assert middle((8, 8), side=0.01).sum() == 1
        assert middle((8, 8), side=1.0).all()

    def test_what_is_known_is_noised_as_much_as_the_rest_and_clean_at_the_end(self, subject):
        x_0, noise = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 2.0)
        mask = torch.tensor([[True, False], [False, False]])
        timesteps = torch.tensor([500, 250])
        hold = holding(subject, x_0, noise=noise, mask=mask, timesteps=timesteps)
        drawn = torch.full((1, 4, 2, 2), 7.0)
        alpha = subject.backbone.pipe.scheduler.alphas_cumprod[250]
        during, after = hold(0, drawn, slice(0, 8)), hold(1, drawn, slice(0, 8))
        assert during[0, 0, 0, 0] == after[0, 0, 0, 0] == 7
        assert torch.allclose(during[0, :, 1], alpha.sqrt() + 2 * (1 - alpha).sqrt())
        assert (after[0, :, 1] == 1).all()

    def test_the_surroundings_stay_and_the_middle_does_not(self, subject):
        latents = []
        given = given_pictures(subject)
        x_0 = latents_of(subject, given.images)
        decode = type(subject.backbone.pipe.vae).decode
        vae = subject.backbone.pipe.vae

        def watch(z, *args, **options):
            latents.append(z * vae.config.scaling_factor)
            return decode(vae, z, *args, **options)

        vae.decode = watch
        try:
            Inpaint(side=0.5).attack(subject)
        finally:
            del vae.decode
        final = latents[-1]  # of the drawing with the empty prompt, as of the one before
        mask = middle((8, 8), side=0.5)
        assert torch.allclose(final[..., ~mask], x_0[..., ~mask], atol=1e-5)
        assert not torch.allclose(final[..., mask], x_0[..., mask], atol=1e-2)

    def test_all_of_it_is_the_usual_drawing(self, subject):
        found = Inpaint(side=1.0).attack(subject)
        assert np.array_equal(found.images, subject.draw(subject.jobs))
        assert found.details["redrawn"] == 1


class TestNoiseInversion:
    def test_a_step_up_by_hand(self, plain):
        # A denoiser that answers c everywhere: x_t' = sqrt(a'/a) (x - sqrt(1 - a) c) + sqrt(1 - a') c.
        answer_always(plain.backbone.pipe, 0.5)
        start = partial_start(plain, 0.25)
        x_0 = torch.full((1, 4, 8, 8), 2.0)
        embeddings = plain.backbone.encode_prompts(["a"])
        alpha, above = plain.backbone.pipe.scheduler.alphas_cumprod[[0, int(start.t)]]
        wanted = (above / alpha).sqrt() * (2 - 0.5 * (1 - alpha).sqrt()) + 0.5 * (1 - above).sqrt()
        found = inverted(plain, x_0, start=start, embeddings=embeddings)
        assert torch.allclose(found, wanted.expand_as(found))

    def test_a_step_up_from_velocity_by_hand(self, plain):
        # The noise that v = 0.5 implies at x = 2 is sqrt(a') v + sqrt(1 - a') x.
        pipe = tiny_pipeline(prediction_type="v_prediction")
        answer_always(pipe, 0.5)
        subject = dataclasses.replace(plain, backbone=backbone_for(pipe, world=plain.backbone.world))
        start = partial_start(subject, 0.25)
        alpha, above = pipe.scheduler.alphas_cumprod[[0, int(start.t)]]
        noise = 0.5 * above.sqrt() + 2 * (1 - above).sqrt()
        wanted = (above / alpha).sqrt() * (2 - noise * (1 - alpha).sqrt()) + noise * (1 - above).sqrt()
        embeddings = subject.backbone.encode_prompts(["a"])
        found = inverted(subject, torch.full((1, 4, 8, 8), 2.0), start=start, embeddings=embeddings)
        assert torch.allclose(found, wanted.expand_as(found))

    def test_down_again_is_where_it_came_from(self, plain):
        # Where the answer does not depend on the input, the steps up are the exact inverse of the sampler's.
        answer_always(plain.backbone.pipe, 0.5)
        x_0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        start = partial_start(plain, 1.0)
        x_t = inverted(plain, x_0, start=start, embeddings=plain.backbone.encode_prompts(["a"] * 2))
        ends = []

        def watch(step, latents, rows):
            ends.append(latents.clone())
            return latents

        draw_from(plain, x_t, start=start, after_step=watch)
        assert not torch.allclose(x_t, x_0, atol=0.1)
        assert torch.allclose(ends[-1], x_0, atol=1e-4)

    def test_guidance_on_the_way_up_changes_what_is_found(self, subject):
        alone, guided = (NoiseInversion(guidance=g).attack(subject).images for g in (1.0, 3.0))
        assert not np.array_equal(alone, guided)

    def test_it_says_how_far_up_it_went(self, subject):
        details = NoiseInversion(strength=0.5).attack(subject).details
        assert details["steps"] == 2
        assert details["timestep"] == int(partial_start(subject, 0.5).t) < 999


def answer_always(pipe, value):
    """Make the real UNet predict one number everywhere."""
    with torch.no_grad():
        pipe.unet.conv_out.weight.zero_()
        pipe.unet.conv_out.bias.fill_(value)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
class TestAll:
    def test_the_model_is_as_it_was_and_twice_is_the_same(self, subject, attack):
        pipe = subject.backbone.pipe
        before, scheduler, generator = bits(pipe), pipe.scheduler, torch.get_rng_state()
        first, again = attack.attack(subject), attack.attack(subject)
        assert same(before, bits(pipe))
        assert pipe.scheduler is scheduler
        assert torch.equal(generator, torch.get_rng_state())
        assert np.array_equal(first.images, again.images)
        assert first.details == again.details

    def test_it_asks_for_the_target_with_another_concepts_picture_as_control(self, subject, attack):
        own, control = attack.attack(subject), attack.attack(random_of(subject))
        assert (own.details["start"], control.details["start"]) == ("Santa Claus", other_concept(subject).target)
        assert own.images.shape == control.images.shape == (2, 32, 32, 3)
        assert not np.array_equal(own.images, control.images)

    def test_the_empty_prompt_is_asked_beside_it(self, subject, attack):
        assert attack.attack(subject).details["without_words"] == 0
