"""The straight path of flow matching: how much of an image is left at each timestep of Stable Diffusion 3 and Flux."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer._typing import Latents, Timesteps
from aizheimer.errors import ModelError

_TRAIN_STEPS = 1000
_UNKNOWN = ("shift_terminal", "invert_sigmas")
"""Settings of a scheduler that stretch or turn its noise levels over."""


@dataclass(frozen=True, eq=False)
class FlowSchedule:
    r"""A rectified-flow schedule: :math:`x_t = (1 - \sigma_t)\, x_0 + \sigma_t\, \epsilon`.

    It has the interface of `aizheimer.diffusion.noise.NoiseSchedule`; a timestep is the number of an entry.

    Args:
        sigmas: :math:`\sigma_t` for t = 0 (nearly clean) to T - 1 (noise); rising, in (0, 1].

    Raises:
        ModelError: The values are not such a schedule.

    Example:
        >>> schedule = FlowSchedule(torch.linspace(0.001, 1, 1000))
        >>> schedule.add_noise(torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8), torch.tensor([999])).max()
        tensor(1.)

    References:
        Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, arXiv:2403.03206, eq. 13.
    """

    sigmas: Float[Tensor, " steps"]

    def __post_init__(self) -> None:
        values = self.sigmas
        rising = values.ndim == 1 and len(values) > 0 and bool((values.diff() > 0).all())
        if not rising or not bool(((values > 0) & (values <= 1)).all()):
            raise ModelError(
                "flow schedule: got sigmas that are not a rising row of numbers in (0, 1]; "
                "check the pipeline's scheduler_config.json."
            )

    @property
    def num_steps(self) -> int:
        """T, the number of training timesteps."""
        return len(self.sigmas)

    @property
    def table(self) -> Tensor:
        """The numbers that the schedule is made of."""
        return self.sigmas

    def at(self, t: Timesteps) -> Tensor:
        r"""Return :math:`\sigma_t`, in the shape of ``t`` and on its device.

        Raises:
            IndexError: A timestep is outside 0 to T - 1.
        """
        if t.device.type == "cpu" and t.numel() and not 0 <= int(t.min()) <= int(t.max()) < self.num_steps:
            raise IndexError(f"timesteps: got {int(t.min())} to {int(t.max())}, wanted 0 to {self.num_steps - 1}")
        return self.sigmas.to(t.device)[t]

    def coefficients(self, t: Timesteps, like: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`1 - \sigma_t` and :math:`\sigma_t`, shaped to multiply ``like``."""
        sigma = self.at(t.to(like.device)).to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
        return 1 - sigma, sigma

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        r"""Return :math:`x_t = (1 - \sigma_t)\, x_0 + \sigma_t\, \epsilon`."""
        signal, sigma = self.coefficients(t, x0)
        return signal * x0 + sigma * noise

    def snr(self, t: Timesteps) -> Tensor:
        r"""Return the signal-to-noise ratio :math:`(1 - \sigma_t)^2 / \sigma_t^2`, in the shape of ``t``."""
        sigma = self.at(t)
        return ((1 - sigma) / sigma).square()


def flow_schedule(scheduler: Any, *, image_tokens: int) -> FlowSchedule:
    r"""Read the schedule out of a diffusers flow-matching scheduler, shifted as it shifts when it draws.

    :math:`\sigma' = \alpha\sigma / (1 + (\alpha - 1)\sigma)` with a fixed :math:`\alpha` (Stable Diffusion 3), or with
    :math:`\alpha = e^\mu` where :math:`\mu` grows with the picture (Flux), or :math:`\alpha = \mu` if the scheduler's
    ``time_shift_type`` is ``"linear"``.

    Args:
        scheduler: The pipeline's scheduler.
        image_tokens: Tokens of one picture, which a dynamic shift depends on.

    Raises:
        ModelError: The scheduler is none of flow matching, or shifts in a way that is not known here.
    """
    config = getattr(scheduler, "config", {})
    if getattr(scheduler, "shift", None) is None or "use_dynamic_shifting" not in config:
        raise ModelError(
            f"scheduler {type(scheduler).__name__} is none of flow matching; wanted FlowMatchEulerDiscreteScheduler."
        )
    steps = int(config.get("num_train_timesteps", _TRAIN_STEPS))
    plain = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    if unknown := [f"{name}={config[name]}" for name in _UNKNOWN if config.get(name)]:
        raise ModelError(
            f"scheduler {type(scheduler).__name__}: got {', '.join(unknown)}, which changes the noise levels in a "
            "way that is not known here; wanted a scheduler without."
        )
    factor = _dynamic_shift(config, image_tokens) if config["use_dynamic_shifting"] else float(scheduler.shift)
    return FlowSchedule((factor * plain / (1 + (factor - 1) * plain)).to(torch.float32))


def _dynamic_shift(config: Any, image_tokens: int) -> float:
    """Return alpha: mu, which is linear in the number of image tokens, or its exponential."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = base + (top - base) * (image_tokens - low) / (high - low)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
