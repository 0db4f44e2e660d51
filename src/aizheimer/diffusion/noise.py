"""The forward process: how much of an image is left at each timestep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aizheimer._typing import AlphasCumprod, Latents, Timesteps
from aizheimer.errors import ModelError


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    r"""A discrete variance-preserving noise schedule.

    :math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon`.

    Args:
        alphas_cumprod: :math:`\bar\alpha_t` for t = 0 (clean) to T - 1 (noise); float, in [0, 1], falling.

    Raises:
        ModelError: The values are not such a schedule.

    Example:
        >>> schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 1000))
        >>> x_t = schedule.add_noise(torch.zeros(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([0, 999]))

    References:
        Ho et al., Denoising Diffusion Probabilistic Models, arXiv:2006.11239, eq. 4.
    """

    alphas_cumprod: AlphasCumprod

    def __post_init__(self) -> None:
        values = self.alphas_cumprod
        falling = values.ndim == 1 and len(values) > 0 and bool((values.diff() <= 0).all())
        if not falling or not bool(((values >= 0) & (values <= 1)).all()):
            raise ModelError(
                "noise schedule: got alphas_cumprod that are not a falling row of numbers in [0, 1]; "
                "check the pipeline's scheduler_config.json."
            )

    @property
    def num_steps(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas_cumprod)

    @property
    def table(self) -> Tensor:
        """The numbers that the schedule is made of."""
        return self.alphas_cumprod

    def coefficients(self, t: Timesteps, like: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\sqrt{\bar\alpha_t}` and :math:`\sqrt{1 - \bar\alpha_t}`, shaped to multiply ``like``.

        Args:
            t: Timesteps (batch,), or a single one for all.
            like: The tensor (batch, ...) whose dtype, device and number of axes are taken.
        """
        # Diffusers casts before the square root; the same order gives the same bits.
        alphas = self.at(t.to(like.device)).to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
        return alphas.sqrt(), (1 - alphas).sqrt()

    def at(self, t: Timesteps) -> Tensor:
        r"""Return :math:`\bar\alpha_t`, in the shape of ``t`` and on its device.

        Raises:
            IndexError: A timestep is outside 0 to T - 1.
        """
        # Where it costs no synchronisation: a negative index would quietly read the noisy end.
        if t.device.type == "cpu" and t.numel() and not 0 <= int(t.min()) <= int(t.max()) < self.num_steps:
            raise IndexError(f"timesteps: got {int(t.min())} to {int(t.max())}, wanted 0 to {self.num_steps - 1}")
        return self.alphas_cumprod.to(t.device)[t]

    def add_noise(self, x0: Latents, noise: Latents, t: Timesteps) -> Latents:
        r"""Return :math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon`.

        Args:
            x0: Clean latents.
            noise: :math:`\epsilon`, standard normal.
            t: One timestep for each item, or a single one for all.
        """
        signal, sigma = self.coefficients(t, x0)
        return signal * x0 + sigma * noise

    def snr(self, t: Timesteps) -> Tensor:
        r"""Return the signal-to-noise ratio :math:`\bar\alpha_t / (1 - \bar\alpha_t)`, in the shape of ``t``."""
        alphas = self.at(t)
        return alphas / (1 - alphas)


def from_scheduler(scheduler: Any) -> NoiseSchedule:
    """Read the training schedule out of a diffusers scheduler.

    Raises:
        ModelError: The scheduler has no ``alphas_cumprod``, as those of flow-matching models.
    """
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas, Tensor):
        raise ModelError(
            f"scheduler {type(scheduler).__name__} has no alphas_cumprod; "
            "wanted one of Stable Diffusion, such as DDIMScheduler."
        )
    return NoiseSchedule(alphas.detach().clone().to(torch.float32))
