from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from aizheimer.diffusion import (
    FlowSchedule,
    NoiseSchedule,
    flow_schedule,
    from_scheduler,
    guide,
    to_epsilon,
    to_velocity,
    to_x0,
    training_target,
)
from aizheimer.errors import ModelError

KINDS = ("epsilon", "v_prediction", "sample")
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CONVERSIONS = {"sample": to_x0, "epsilon": to_epsilon, "v_prediction": to_velocity}


def scheduler(kind: str = "epsilon") -> DDIMScheduler:
    return DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, prediction_type=kind)


@pytest.fixture
def schedule() -> NoiseSchedule:
    return from_scheduler(scheduler())


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("other", [DDIMScheduler, DDPMScheduler])
def test_add_noise_has_the_bits_of_diffusers(schedule: NoiseSchedule, dtype: torch.dtype, other: type) -> None:
    x0, noise = random(4, 3, 8, 8).to(dtype), random(4, 3, 8, 8, seed=1).to(dtype)
    t = torch.tensor([0, 1, 500, 999])
    ours = schedule.add_noise(x0, noise, t)
    assert ours.dtype == dtype
    assert torch.equal(ours, other(**BETAS).add_noise(x0, noise, t))


@pytest.mark.parametrize("other", [DDIMScheduler, DDPMScheduler])
def test_velocity_is_that_of_diffusers(schedule: NoiseSchedule, other: type) -> None:
    x0, noise, t = random(3, 4, 8, 8), random(3, 4, 8, 8, seed=1), torch.tensor([0, 400, 999])
    x_t = schedule.add_noise(x0, noise, t)
    wanted = other(**BETAS).get_velocity(x0, noise, t)
    assert torch.allclose(to_velocity(noise, x_t, t, schedule, "epsilon"), wanted, atol=3e-5)
    assert torch.allclose(to_velocity(x0, x_t, t[1:2], schedule, "sample")[1], wanted[1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [DDIMScheduler, DDPMScheduler])
@pytest.mark.parametrize("t", [20, 500, 980])
def test_x0_is_that_of_diffusers(schedule: NoiseSchedule, kind: str, other: type, t: int) -> None:
    reference = other(**BETAS, clip_sample=False, prediction_type=kind)
    reference.set_timesteps(50)
    x_t, prediction = random(2, 4, 8, 8), random(2, 4, 8, 8, seed=1)
    wanted = reference.step(prediction, t, x_t, generator=torch.Generator()).pred_original_sample
    ours = to_x0(prediction, x_t, torch.tensor(t), schedule, kind)
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_epsilon_gives_the_ddim_step_of_diffusers(kind: str) -> None:
    """The deterministic step to the previous timestep is a x0 + s epsilon: wrong epsilon, wrong step."""
    reference = scheduler(kind)
    reference.set_timesteps(50)
    schedule, t = from_scheduler(reference), torch.tensor(500)
    x_t, prediction = random(2, 4, 8, 8), random(2, 4, 8, 8, seed=1)
    wanted = reference.step(prediction, 500, x_t).prev_sample
    x0 = to_x0(prediction, x_t, t, schedule, kind)
    ours = schedule.add_noise(x0, to_epsilon(prediction, x_t, t, schedule, kind), t - 20)
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-5)


@given(t=st.integers(1, 998), seed=st.integers(0, 10_000), given_kind=st.sampled_from(KINDS))
def test_every_prediction_gives_the_same_three(t: int, seed: int, given_kind: str) -> None:
    schedule = NoiseSchedule(from_scheduler(scheduler()).alphas_cumprod.double())
    x0, noise = random(2, 1, 3, 3, seed=seed).double(), random(2, 1, 3, 3, seed=seed + 1).double()
    step = torch.tensor([t, t + 1])
    x_t = schedule.add_noise(x0, noise, step)
    signal, sigma = schedule.coefficients(step, x_t)
    truth = {"sample": x0, "epsilon": noise, "v_prediction": signal * noise - sigma * x0}
    for kind, convert in CONVERSIONS.items():
        assert torch.allclose(convert(truth[given_kind], x_t, step, schedule, given_kind), truth[kind], atol=1e-7)


@pytest.mark.parametrize("convert", CONVERSIONS.values())
def test_an_unknown_prediction_is_refused(schedule: NoiseSchedule, convert: object) -> None:
    x = random(1, 1, 2, 2)
    with pytest.raises(ModelError, match="Did you mean 'v_prediction'"):
        convert(x, x, torch.tensor([5]), schedule, "v_predicton")  # type: ignore[operator]


def test_training_targets_are_those_of_diffusers(schedule: NoiseSchedule) -> None:
    """What a prediction of each kind should have been: the conversions of it give noise and image back."""
    x0, noise, t = random(3, 4, 8, 8), random(3, 4, 8, 8, seed=1), torch.tensor([1, 400, 900])
    velocity = training_target(x0, noise, t, schedule, "v_prediction")
    assert torch.allclose(velocity, scheduler("v_prediction").get_velocity(x0, noise, t), atol=1e-6)
    assert torch.equal(training_target(x0, noise, t, schedule, "epsilon"), noise)
    assert torch.equal(training_target(x0, noise, t, schedule, "sample"), x0)
    flow = flow_schedule(FlowMatchEulerDiscreteScheduler(shift=3.0), image_tokens=16)
    target, x_t = training_target(x0, noise, t, flow, "flow"), flow.add_noise(x0, noise, t)
    assert torch.equal(target, noise - x0)
    assert torch.allclose(to_x0(target, x_t, t, flow, "flow"), x0, atol=1e-5)
    assert torch.allclose(to_epsilon(target, x_t, t, flow, "flow"), noise, atol=1e-5)
    with pytest.raises(ModelError, match="Did you mean 'flow'"):
        training_target(x0, noise, t, flow, "flwo")


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_dynamic_shift_is_that_of_diffusers(kind: str) -> None:
    shifting = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)  # type: ignore[arg-type]
    ours = flow_schedule(shifting, image_tokens=1024)
    mu = 0.5 + (1.15 - 0.5) * (1024 - 256) / (4096 - 256)
    shifting.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    assert torch.allclose(ours.sigmas[[999, 749, 499, 249]], shifting.sigmas[:4], atol=1e-6)


@pytest.mark.parametrize("setting", [{"shift_terminal": 0.1}, {"invert_sigmas": True}])
def test_noise_levels_that_are_not_known_are_refused(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ModelError, match=rf"FlowMatchEulerDiscreteScheduler: got {name}={value}, which .* without\."):
        flow_schedule(FlowMatchEulerDiscreteScheduler(shift=3.0, **setting), image_tokens=16)


def test_values_that_are_no_flow_schedule() -> None:
    with pytest.raises(ModelError, match="flow schedule: got sigmas"):
        FlowSchedule(torch.tensor([0.5, 0.2]))
    with pytest.raises(ModelError, match="DDIMScheduler is none of flow matching"):
        flow_schedule(scheduler(), image_tokens=16)
    with pytest.raises(IndexError):
        FlowSchedule(torch.tensor([0.5, 1.0])).snr(torch.tensor(2))


def test_snr_by_hand() -> None:
    schedule = NoiseSchedule(torch.tensor([0.8, 0.5, 0.2]))
    assert torch.allclose(schedule.snr(torch.tensor([0, 1, 2])), torch.tensor([4.0, 1.0, 0.25]))
    assert schedule.snr(torch.tensor(1)).shape == ()
    assert schedule.num_steps == 3


def test_add_noise_by_hand() -> None:
    schedule = NoiseSchedule(torch.tensor([0.64, 0.36]))
    x0, noise = torch.full((2, 1, 1, 1), 10.0), torch.full((2, 1, 1, 1), 100.0)
    noisy = schedule.add_noise(x0, noise, torch.tensor([0, 1])).flatten()
    assert noisy.tolist() == pytest.approx([0.8 * 10 + 0.6 * 100, 0.6 * 10 + 0.8 * 100])
    assert schedule.add_noise(x0, noise, torch.tensor(1)).flatten().tolist() == pytest.approx([86.0, 86.0])


def test_noise_keeps_unit_variance(schedule: NoiseSchedule) -> None:
    noisy = schedule.add_noise(random(1, 1, 300, 300), random(1, 1, 300, 300, seed=1), torch.tensor([300]))
    assert noisy.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("t", [-1, 1000])
def test_timesteps_outside_do_not_wrap(schedule: NoiseSchedule, t: int) -> None:
    with pytest.raises(IndexError):
        schedule.snr(torch.tensor([5, t]))


@pytest.mark.parametrize(
    "values", [torch.tensor([0.1, 0.9]), torch.tensor([1.2, 0.5]), torch.tensor([0.5, math.nan]), torch.tensor([])]
)
def test_values_that_are_no_schedule(values: torch.Tensor) -> None:
    with pytest.raises(ModelError, match="alphas_cumprod"):
        NoiseSchedule(values)


def test_a_copy_is_taken_of_the_scheduler() -> None:
    source = scheduler()
    schedule = from_scheduler(source)
    source.alphas_cumprod.zero_()
    assert schedule.alphas_cumprod[0] > 0.99


def test_a_scheduler_of_another_family_is_refused() -> None:
    with pytest.raises(ModelError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod"):
        from_scheduler(FlowMatchEulerDiscreteScheduler())


def test_guidance() -> None:
    u, c = random(2, 4, 2, 2), random(2, 4, 2, 2, seed=1)
    assert torch.equal(guide(u, c, 0.0), u)
    assert torch.allclose(guide(u, c, 1.0), c, atol=1e-6)
    assert torch.equal(guide(u, c, 7.5), u + 7.5 * (c - u))  # the expression of the pipeline


def test_gradients_flow_through(schedule: NoiseSchedule) -> None:
    prediction = random(1, 1, 2, 2).requires_grad_()
    x_t, t = random(1, 1, 2, 2, seed=1), torch.tensor([100])
    to_x0(prediction, x_t, t, schedule, "epsilon").sum().backward()
    signal, sigma = schedule.coefficients(t, x_t)
    assert torch.allclose(prediction.grad, (-sigma / signal).expand(1, 1, 2, 2))


def test_shapes_are_checked_while_testing() -> None:
    with pytest.raises(TypeCheckError):
        guide(random(1, 4, 2, 2), random(1, 4, 2, 3), 1.0)
