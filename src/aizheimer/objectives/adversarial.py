"""DoCo's discriminator: tell clean latents of the target from clean latents of the anchor, patch by patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aizheimer._typing import Latents
from aizheimer.errors import InputError

WIDTH = 64
"""Channels after the first convolution; each later one doubles them, up to eight times."""


class PatchDiscriminator(nn.Module):
    """A small convolutional network that judges every patch of a latent image.

    The published one is made for latents of 64 x 64: four strided convolutions (64, 128, 256, 512 channels, batch
    norm on all but the first) and a last one to a single logit for each of 3 x 3 patches. Smaller latents get as many
    strided convolutions as leave the last one something to see.

    Args:
        channels: Channels of the latents.
        size: Height or width of the latents, the smaller one; at least 4.
        generator: Fixes the initial weights (normal, standard deviation 0.02, as in pix2pix).

    Raises:
        InputError: If the latents are too small.

    Example:
        >>> net = PatchDiscriminator(4, 64, generator=torch.Generator().manual_seed(0))
        >>> net(torch.zeros(2, 4, 64, 64)).shape
        torch.Size([2, 1, 3, 3])

    References:
        Wu et al., Unlearning Concepts in Diffusion Model via Concept Domain Correction and Concept Preserving
        Gradient, arXiv:2405.15304. Isola et al., arXiv:1611.07004 (PatchGAN).
    """

    def __init__(self, channels: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        depth = min(4, size.bit_length() - 2)
        if depth < 1:
            raise InputError(f"The discriminator got latents of {size} pixels; wanted at least 4.")
        layers: list[nn.Module] = []
        width = channels
        # Made on the meta device: the layers' own initialisation would move the global random stream.
        with torch.device("meta"):
            for i in range(depth):
                out = WIDTH * min(2**i, 8)
                layers.append(nn.Conv2d(width, out, 4, stride=2, padding=1, bias=i == 0))
                layers += [nn.BatchNorm2d(out, track_running_stats=False)] if i > 0 else []
                layers.append(nn.LeakyReLU(0.2))
                width = out
            layers.append(nn.Conv2d(width, 1, 4 if size >> depth > 2 else 2, stride=1, padding=1))
        self.layers = nn.Sequential(*layers).to_empty(device="cpu")
        self._initialise(generator)

    def forward(self, x_0: Latents) -> Tensor:
        """Return (batch, 1, patches, patches) logits: positive is target, negative is anchor."""
        return self.layers(x_0)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(0.0, 0.02, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1.0, 0.02, generator=generator)
                nn.init.zeros_(module.bias)


def discriminator_loss(anchor_logits: Tensor, target_logits: Tensor) -> Tensor:
    r"""Return :math:`\operatorname{BCE}(D(r), 0) + \operatorname{BCE}(D(f), 1)`.

    Args:
        anchor_logits: Of clean latents the frozen model predicts for the anchor's prompts (label 0).
        target_logits: Of clean latents the edited model predicts for the target's prompts (label 1).
    """
    return _bce(anchor_logits, 0.0) + _bce(target_logits, 1.0)


def deception_loss(target_logits: Tensor) -> Tensor:
    r"""Return :math:`\operatorname{BCE}(D(f), 0)`: the edited model wants its target latents taken for the anchor's."""
    return _bce(target_logits, 0.0)


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
