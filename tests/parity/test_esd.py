"""ESD's targets by hand, for noise and for velocity, and its gradient against finite differences."""

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.sources import Draw
from aizheimer.diffusion.noise import NoiseSchedule
from aizheimer.diffusion.prediction import to_epsilon, to_velocity
from aizheimer.engine.anchor import BankAnchor
from aizheimer.engine.noise_problem import TargetTerm
from aizheimer.engine.noise_targets import CurrentPrediction, LiveGuidance
from aizheimer.errors import InputError
from aizheimer.modules.parameters import swapped
from aizheimer.objectives.noise_target import masked_mse, negative_guidance, target_mse
from tests.slopes import check_slope
from tests.tiny import tiny_pipeline, tiny_world


def latents(*key):
    return torch.randn(2, 4, 8, 8, generator=generator_for(0, *key), dtype=torch.float64)


class TestTargets:
    def test_by_hand(self):
        """c = 3, null = 1: one step back from null is -1, two are -3; from c = 3 they are 1 and -1; from 10 it is 8."""
        c, null = torch.tensor(3.0), torch.tensor(1.0)
        assert negative_guidance(c, null, eta=1.0) == -1
        assert negative_guidance(c, null, eta=2.0) == -3
        assert negative_guidance(c, null, eta=1.0, start=c) == 1
        assert negative_guidance(c, null, eta=2.0, start=c) == -1
        assert negative_guidance(c, null, eta=1.0, start=torch.tensor(10.0)) == 8
        assert negative_guidance(c, null, eta=0.0) == null

    @pytest.mark.parametrize("eta", [0.5, 1.0, 3.0])
    def test_eta_of_2024_is_eta_of_2023_plus_one(self, eta):
        c, null = latents("c"), latents("null")
        torch.testing.assert_close(
            negative_guidance(c, null, eta=eta + 1, start=c), negative_guidance(c, null, eta=eta)
        )

    @pytest.mark.parametrize("start", [False, True])
    def test_velocity_targets_are_noise_targets(self, start):
        """The same target, computed on velocities and turned into noise afterwards."""
        schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 1000))
        x_t, t = latents("x"), torch.tensor([100, 900])
        predictions = {name: latents(name) for name in ("c", "null", "start")}
        velocities = {name: to_velocity(epsilon, x_t, t, schedule, "epsilon") for name, epsilon in predictions.items()}
        chosen = {"start": predictions["start"]} if start else {}
        noise = negative_guidance(predictions["c"], predictions["null"], eta=1.5, **chosen)
        chosen = {"start": velocities["start"]} if start else {}
        velocity = negative_guidance(velocities["c"], velocities["null"], eta=1.5, **chosen)
        torch.testing.assert_close(to_epsilon(velocity, x_t, t, schedule, "v_prediction"), noise)

    def test_no_gradient_flows_into_a_target(self):
        c = latents("c").requires_grad_()
        assert not negative_guidance(c, latents("null"), eta=1.0, start=c).requires_grad

    def test_the_loss_by_hand(self):
        prediction, target = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
        assert target_mse(prediction, target).total == 2.5
        assert masked_mse(prediction, target, torch.tensor([[1.0, 0.0]])).total == 1.0
        assert masked_mse(prediction, target, torch.tensor([[0.25, 0.75]])).total == pytest.approx(3.25)
        assert masked_mse(prediction, target, torch.zeros(1, 2)).total == 0.0
        with pytest.raises(InputError, match="same shape"):
            target_mse(prediction, target[0])


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


@pytest.fixture(scope="module")
def draw():
    x_t = torch.randn(2, 4, 8, 8, generator=generator_for(3, "x"))
    return Draw(x_t=x_t, t=torch.tensor([800, 200]), prompt_index=torch.tensor([1, 0]))


def test_live_targets_are_those_of_the_original_weights(backbone, draw):
    """The weights are moved away; the target is still what the unmoved network says, prompt by prompt."""
    concept = backbone.encode_prompts(["santa claus in noto style", "cat"])
    start = backbone.encode_prompts(["old man", "tree"])
    null = backbone.encode_prompts([""])
    rows = [
        [
            backbone.predict(draw.x_t[i : i + 1], draw.t[i : i + 1], e).detach()
            for e in (concept[j : j + 1], null, start[j : j + 1])
        ]
        for i, j in enumerate(draw.prompt_index.tolist())
    ]
    name, weight = next((n, p) for n, p in backbone.denoiser.named_parameters() if "attn2.to_v" in n)
    originals = {name: weight.detach().clone()}
    with torch.no_grad():
        weight.mul_(-3.0)
    live = {
        "backbone": backbone,
        "teacher": lambda: swapped(backbone.denoiser, originals),
        "concept": concept,
        "neutral": null,
        "eta": 1.5,
    }
    try:
        plain = LiveGuidance(**live).predict(draw)
        started = LiveGuidance(**live, start=start).predict(draw)
        moved = CurrentPrediction(backbone=backbone, embeddings=concept).predict(draw)
    finally:
        with torch.no_grad():
            weight.copy_(originals[name])
    torch.testing.assert_close(plain, torch.cat([n - 1.5 * (c - n) for c, n, _ in rows]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(started, torch.cat([s - 1.5 * (c - n) for c, n, s in rows]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(moved, torch.cat([c for c, _, _ in rows]), atol=1e-3)


def test_the_gradient_is_that_of_finite_differences(backbone, draw):
    """In double precision, along one random direction of one weight."""
    pipe = tiny_pipeline(seed=5)
    pipe.unet.double()
    double = backbone_for(pipe, world=tiny_world())
    embeddings = double.encode_prompts(["santa claus", "cat"]).double()
    given = Draw(x_t=draw.x_t.double(), t=draw.t, prompt_index=draw.prompt_index, target=latents("target"))

    class Given:
        def draw(self, count, *, step, generator):
            return given

    term = TargetTerm(backbone=double, source=Given(), embeddings=embeddings, target=BankAnchor(), batch_size=2)
    weight = double.denoiser.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight")
    direction = torch.randn(weight.shape, generator=generator_for(2, "direction"), dtype=torch.float64)

    def loss():
        return term.losses(1, generator_for(0))["erase"].value

    check_slope(loss, [weight], [direction], step=1e-5, rel=1e-5)
