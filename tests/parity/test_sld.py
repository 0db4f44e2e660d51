"""Safe latent diffusion against numbers worked by hand and against a loop of its own."""

import numpy as np
import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.edits.hooks.sld import SLDHook, _Running, safety_guidance
from aizheimer.methods.sld import SLD
from tests.unit.edits.running import apart, draw, edit_of

PROMPTS = ["a cat", "santa claus in noto style"]
NUMBERS = {"scale": 50.0, "threshold": 0.05, "momentum_scale": 0.5, "momentum_beta": 0.7}
HOOK = SLDHook("santa claus", warmup=2, **NUMBERS)


def test_gamma_by_hand():
    # prompt - concept = -0.01, -0.5, 0.02, 0.3: weights 0.2, 1 (clipped), 0.4 (below lambda), 0 (above lambda)
    concept = torch.zeros(1, 4, 1, 1)
    prompt = torch.tensor([-0.01, -0.5, 0.02, 0.3]).view(1, 4, 1, 1)
    null = torch.tensor([-1.0, 2.0, -3.0, -4.0]).view(1, 4, 1, 1)
    gamma = safety_guidance(prompt, concept, null=null, scale=20.0, threshold=0.025)
    torch.testing.assert_close(gamma.flatten(), torch.tensor([0.2, -2.0, 1.2, 0.0]))


def test_the_threshold_itself_is_not_below():
    one = torch.full((1, 1, 1, 1), 0.5)
    null = torch.zeros_like(one)
    assert safety_guidance(one, torch.zeros_like(one), null=null - 1, scale=1.0, threshold=0.5) == 0
    assert safety_guidance(one, torch.zeros_like(one), null=null - 1, scale=1.0, threshold=0.6) == 0.5


def test_momentum_by_hand():
    hook = SLDHook("x", scale=1.0, threshold=9.0, momentum_scale=0.5, momentum_beta=0.7, warmup=0)
    running = _Running(pipe=None, hook=hook, strength=1.0)
    two, one, zero = (torch.full((1, 1, 1, 1), value) for value in (2.0, 1.0, 0.0))
    # weight min(1, |2 - 1|) = 1, times concept - null = 1
    assert running.guidance(two, one, zero).item() == pytest.approx(1.0)
    assert running.momentum.item() == pytest.approx(0.3)
    assert running.guidance(two, one, zero).item() == pytest.approx(1.15)
    assert running.momentum.item() == pytest.approx(0.7 * 0.3 + 0.3 * 1.15)


@pytest.mark.parametrize(
    ("options", "acting"),
    [
        ({}, [2, 3, 4]),
        ({"warmup_by_timestep": True}, [0, 1, 2, 3]),  # timesteps 801 ... 201 are above 2, 1 is not
        ({"warmup_reference": 10}, [1, 2, 3, 4]),
    ],
)
def test_warm_up(options, acting):
    hook = SLDHook("x", warmup=2, **NUMBERS, **options)
    timesteps = [801, 601, 401, 201, 1]
    assert [step for step, t in enumerate(timesteps) if hook.acts(step, t, steps=5)] == acting


def by_hand(pipe, prompts, *, steps, guidance, hook):
    """Three branches, one loop: the method as it is written down."""
    latents = torch.cat(
        [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(len(prompts))]
    )
    texts = [[""] * len(prompts), prompts, [hook.words] * len(prompts)]
    embeddings = torch.cat([pipe.encode_prompt(t, "cpu", 1, False)[0] for t in texts])
    pipe.scheduler.set_timesteps(steps)
    momentum = torch.zeros_like(latents)
    with torch.no_grad():
        for i, t in enumerate(pipe.scheduler.timesteps):
            null, text, concept = pipe.unet(torch.cat([latents] * 3), t, encoder_hidden_states=embeddings)[0].chunk(3)
            weight = torch.clamp((text - concept).abs() * hook.scale, max=1)
            weight[(text - concept) >= hook.threshold] = 0
            gamma = weight * (concept - null) + hook.momentum_scale * momentum
            momentum = hook.momentum_beta * momentum + (1 - hook.momentum_beta) * gamma
            direction = text - null - (gamma if i >= hook.warmup else 0)
            latents = pipe.scheduler.step(null + guidance * direction, t, latents).prev_sample
        pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_equals_a_loop_with_three_branches(tiny_pipeline, prediction):
    tiny_pipeline.scheduler.register_to_config(prediction_type=prediction)
    wanted = by_hand(tiny_pipeline, PROMPTS, steps=5, guidance=6.0, hook=HOOK)
    plain = draw(tiny_pipeline, PROMPTS, steps=5, guidance=6.0)
    with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
        for _ in range(2):  # the momentum begins again
            assert apart(draw(tiny_pipeline, PROMPTS, steps=5, guidance=6.0), wanted) < 1e-4
    assert apart(plain, wanted) > 1e-3


def test_two_prompts_are_two_single_calls(tiny_pipeline):
    with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
        both = draw(tiny_pipeline, PROMPTS, steps=4)
        alone = [draw(tiny_pipeline, prompt, steps=4, seeds=[i]) for i, prompt in enumerate(PROMPTS)]
    assert apart(both, np.concatenate(alone)) < 1e-4


def test_during_the_warm_up_nothing_changes(tiny_pipeline):
    wanted = draw(tiny_pipeline, PROMPTS, steps=3)
    with edit_of(tiny_pipeline, SLDHook("santa claus", warmup=3, **NUMBERS)).applied(tiny_pipeline):
        assert np.array_equal(draw(tiny_pipeline, PROMPTS, steps=3), wanted)


def test_without_guidance_it_warns_and_changes_nothing(tiny_pipeline):
    wanted = draw(tiny_pipeline, "a cat", guidance=1.0)
    with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline), pytest.warns(UserWarning, match="guidance 1 or less"):
        assert np.array_equal(draw(tiny_pipeline, "a cat", guidance=1.0), wanted)


def test_the_denoiser_on_its_own_is_untouched(tiny_pipeline, tiny_backbone):
    x, embeddings = torch.zeros(2, 4, 8, 8), tiny_backbone.encode_prompts(["a cat", "santa claus"])
    wanted = tiny_backbone.predict(x, 500, embeddings)
    with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
        draw(tiny_pipeline, "a cat", steps=1)
        assert torch.equal(tiny_backbone.predict(x, 500, embeddings), wanted)


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"preset": "weak"}, (15, 200.0, 0.0, 0.0, 0.0)),
        ({"preset": "weak", "weak_scale": "diffusers"}, (15, 20.0, 0.0, 0.0, 0.0)),
        ({"preset": "medium"}, (10, 1000.0, 0.01, 0.3, 0.4)),
        ({"preset": "strong"}, (7, 2000.0, 0.025, 0.5, 0.7)),
        ({"preset": "max"}, (0, 5000.0, 1.0, 0.5, 0.7)),
        ({"preset": "max", "threshold": 0.0, "warmup": 3}, (3, 5000.0, 0.0, 0.5, 0.7)),
    ],
)
def test_presets_and_numbers_of_ones_own(tiny_backbone, fields, numbers):
    hook = SLD(**fields).unlearn(tiny_backbone, Concept("santa claus")).hook
    found = (hook.warmup, hook.scale, hook.threshold, hook.momentum_scale, hook.momentum_beta)
    assert found == numbers
    assert not hook.warmup_by_timestep
