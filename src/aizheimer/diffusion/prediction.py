r"""Convert what a denoiser predicts into noise, clean latents or velocity.

With :math:`a = \sqrt{\bar\alpha_t}` and :math:`s = \sqrt{1 - \bar\alpha_t}`, so that
:math:`x_t = a x_0 + s\epsilon`, the three predictions are

====================  =============================  ===============================
``kind``              predicts                       named so by
====================  =============================  ===============================
``"epsilon"``         :math:`\epsilon`               Stable Diffusion 1, 2 base
``"v_prediction"``    :math:`v = a\epsilon - s x_0`  Stable Diffusion 2 (768 px)
``"sample"``          :math:`x_0`                    latent consistency and others
``"flow"``            :math:`\epsilon - x_0`          Stable Diffusion 3, Flux
====================  =============================  ===============================

Flow matching has :math:`a = 1 - \sigma_t` and :math:`s = \sigma_t`; its kind belongs to its schedule,
`aizheimer.diffusion.flow.FlowSchedule`, as the three others belong to theirs.

References:
    Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, arXiv:2202.00512,
    appendix D (velocity).
"""

from __future__ import annotations

from typing import Literal, get_args

from aizheimer._typing import Latents, Timesteps
from aizheimer.diffusion.flow import FlowSchedule
from aizheimer.diffusion.noise import NoiseSchedule
from aizheimer.errors import ModelError, did_you_mean

PredictionKind = Literal["epsilon", "v_prediction", "sample", "flow"]
Schedule = NoiseSchedule | FlowSchedule
"""What timesteps mean: how much of an image is left at each."""


def to_x0(prediction: Latents, x_t: Latents, t: Timesteps, schedule: Schedule, kind: PredictionKind | str) -> Latents:
    r"""Return the clean latents :math:`x_0` that a prediction implies.

    :math:`(x_t - s\epsilon)/a` from noise, :math:`a x_t - s v` from velocity, :math:`x_t - s u` from flow. From noise
    it is unbounded where the schedule ends in pure noise (:math:`a = 0`).

    Args:
        prediction: The denoiser's output.
        x_t: Its input.
        t: The timesteps of the input.
        schedule: The noise schedule that the denoiser was trained with.
        kind: What it predicts: ``"epsilon"``, ``"v_prediction"``, ``"sample"`` or ``"flow"``.

    Raises:
        ModelError: Unknown kind.
    """
    check_kind(kind)
    if kind == "sample":
        return prediction
    signal, sigma = schedule.coefficients(t, x_t)
    if kind == "epsilon":
        return (x_t - sigma * prediction) / signal
    if kind == "flow":
        return x_t - sigma * prediction
    return signal * x_t - sigma * prediction


def to_epsilon(
    prediction: Latents, x_t: Latents, t: Timesteps, schedule: Schedule, kind: PredictionKind | str
) -> Latents:
    r"""Return the noise :math:`\epsilon` that a prediction implies.

    :math:`a v + s x_t` from velocity, :math:`(x_t - a x_0)/s` from clean latents. The arguments
    are those of :func:`to_x0`.

    Raises:
        ModelError: Unknown kind.
    """
    check_kind(kind)
    if kind == "epsilon":
        return prediction
    signal, sigma = schedule.coefficients(t, x_t)
    if kind == "v_prediction":
        return signal * prediction + sigma * x_t
    if kind == "flow":
        return x_t + signal * prediction
    return (x_t - signal * prediction) / sigma


def to_velocity(
    prediction: Latents, x_t: Latents, t: Timesteps, schedule: Schedule, kind: PredictionKind | str
) -> Latents:
    r"""Return the velocity :math:`v = a\epsilon - s x_0` that a prediction implies.

    :math:`(\epsilon - s x_t)/a` from noise, :math:`(a x_t - x_0)/s` from clean latents. The
    arguments are those of :func:`to_x0`.

    Raises:
        ModelError: Unknown kind.
    """
    check_kind(kind)
    if kind == "v_prediction":
        return prediction
    signal, sigma = schedule.coefficients(t, x_t)
    if kind == "epsilon":
        return (prediction - sigma * x_t) / signal
    if kind == "flow":
        return signal * (x_t + signal * prediction) - sigma * (x_t - sigma * prediction)
    return (signal * x_t - prediction) / sigma


def training_target(
    x0: Latents, noise: Latents, t: Timesteps, schedule: Schedule, kind: PredictionKind | str
) -> Latents:
    r"""Return what the denoiser is trained to predict of a noised image: of its kind, from the truth.

    Args:
        x0: Clean latents.
        noise: :math:`\epsilon`, what was added.
        t: The timesteps.
        schedule: The noise schedule.
        kind: See :func:`to_x0`.

    Raises:
        ModelError: Unknown kind.
    """
    check_kind(kind)
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return x0
    if kind == "flow":
        return noise - x0
    signal, sigma = schedule.coefficients(t, x0)
    return signal * noise - sigma * x0


def check_kind(kind: str) -> None:
    """Raise ModelError unless ``kind`` is one of the predictions known here."""
    kinds = get_args(PredictionKind)
    if kind not in kinds:
        raise ModelError(f"prediction type: got {kind!r}, wanted one of {', '.join(kinds)}.{did_you_mean(kind, kinds)}")
