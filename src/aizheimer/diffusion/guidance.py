"""Classifier-free guidance."""

from __future__ import annotations

from aizheimer._typing import Latents


def guide(unconditional: Latents, conditional: Latents, scale: float) -> Latents:
    r"""Return :math:`u + w (c - u)`: push the prediction away from the empty prompt.

    Args:
        unconditional: :math:`u`, the prediction for the empty prompt.
        conditional: :math:`c`, the prediction for the prompt.
        scale: :math:`w`; 0 ignores the prompt, 1 is no guidance, 7.5 is usual for Stable Diffusion.

    References:
        Ho and Salimans, Classifier-Free Diffusion Guidance, arXiv:2207.12598, eq. 6 with weight w - 1.
    """
    return unconditional + scale * (conditional - unconditional)
