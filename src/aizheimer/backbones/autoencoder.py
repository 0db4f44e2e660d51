"""Pixels to the latents that a denoiser sees, and back: the same for every family, by the autoencoder's own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from aizheimer._typing import Images, Latents
from aizheimer.errors import DataError

_PIXEL_TOLERANCE = 1e-3


@torch.no_grad()
def encoded(vae: Any, pixels: Images, *, factor: int, generator: torch.Generator | None) -> Latents:
    r"""Return latents :math:`(z - m) / s` as the denoiser sees them.

    m is the shift of the autoencoder's configuration (Stable Diffusion 3, Flux) or the mean of each channel, s one over
    its scaling factor, or with means the deviation of each channel over that factor. An autoencoder that overflows in
    half precision (``force_upcast``: Stable Diffusion XL's) works in float32.

    Args:
        vae: The autoencoder.
        pixels: Images in [-1, 1].
        factor: The images' size must be a multiple of it.
        generator: Draws a sample of the posterior; without one its mean is taken.

    Raises:
        DataError: Pixels outside [-1, 1], or a size that does not fit.
    """
    if pixels.shape[-2] % factor or pixels.shape[-1] % factor:
        raise DataError(f"images: got {tuple(pixels.shape[-2:])} pixels, wanted multiples of {factor}; crop them.")
    if (largest := pixels.abs().max().item()) > 1 + _PIXEL_TOLERANCE:
        raise DataError(f"images: got pixel values up to {largest:g}, wanted [-1, 1]; divide by 127.5, subtract 1.")
    dtype = vae.dtype
    with _safe_precision(vae):
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        shift, scale = _numbers(vae, latents)
        return ((latents if shift is None else latents - shift) * scale).to(dtype)


@torch.no_grad()
def decoded(vae: Any, latents: Latents) -> Images:
    """Return pixels, clamped to [-1, 1], of latents as the denoiser sees them: the inverse of `encoded`."""
    dtype = vae.dtype
    with _safe_precision(vae):
        given = latents.to(vae.device, vae.dtype)
        shift, scale = _numbers(vae, given)
        scaled = given / scale if shift is None else given / scale + shift
        return vae.decode(scaled, return_dict=False)[0].clamp(-1, 1).to(dtype)


@contextmanager
def _safe_precision(vae: Any) -> Iterator[None]:
    """Within the context an autoencoder that overflows in float16 is in float32."""
    upcast = vae.dtype == torch.float16 and bool(getattr(vae.config, "force_upcast", False))
    if upcast:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(torch.float16)


def _numbers(vae: Any, like: Tensor) -> tuple[Tensor | float | None, Tensor | float]:
    """Return what is subtracted of latents (None for nothing) and what they are then multiplied by."""
    config = vae.config
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and deviation is not None:
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1).to(like) for values in (mean, deviation))
        return mean, config.scaling_factor / deviation
    return getattr(config, "shift_factor", None) or None, config.scaling_factor
