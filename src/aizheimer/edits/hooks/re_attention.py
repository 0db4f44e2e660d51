"""Latent re-attention: damp what a filtered prompt has made louder in the low frequencies of a UNet's skips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from aizheimer.edits.hook import Patches

LOW = (-1, 0)
"""The low frequencies of each axis: FreeU's window of two around the middle of a centred spectrum, which FreeU and
SAFREE's published code leave lopsided."""
LOUDER = 1.001
"""A frequency that exceeds another by less is the same one, computed in a batch of another size."""


def low_frequencies(
    features: Float[Tensor, "rows channels height width"],
) -> Complex[Tensor, "rows channels lines columns"]:
    """Return the low corner of the two-dimensional Fourier transform of each channel."""
    lines, columns = _window(features)
    return torch.fft.fft2(features.float())[..., lines[:, None], columns]


def re_attended(
    features: Float[Tensor, "rows channels height width"],
    reference: Complex[Tensor, "rows channels lines columns"],
    *,
    scale: float,
    overwrite: bool = False,
    strength: float = 1.0,
) -> Float[Tensor, "rows channels height width"]:
    r"""Return features whose low frequencies are damped where they exceed the reference's.

    :math:`F' = s\,F` where :math:`|F| > |F_0|`, by more than rounding, and :math:`F` elsewhere. Where nothing exceeds,
    bits stay.

    Args:
        features: Skip features under the filtered prompt, of transform :math:`F`.
        reference: :math:`F_0`, the `low_frequencies` of those under the prompt as it was written.
        scale: :math:`s`.
        overwrite: Write :math:`s` itself in the place of :math:`F`, as the published code does.
        strength: How much of the way, 1 for all.
    """
    own = low_frequencies(features)
    wanted = torch.full_like(own, scale) if overwrite else scale * own
    change = torch.where(own.abs() > LOUDER * reference.abs(), strength * (wanted - own), torch.zeros_like(own))
    lines, columns = _window(features)
    spectrum = torch.zeros(features.shape, dtype=own.dtype, device=own.device)
    spectrum[..., lines[:, None], columns] = change
    return features + torch.fft.ifft2(spectrum).real.to(features.dtype)


def _window(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of `LOW` in each axis of an uncentred spectrum; an axis of one has one frequency only."""
    height, width = (sorted({frequency % size for frequency in LOW}) for size in features.shape[-2:])
    return torch.tensor(height, device=features.device), torch.tensor(width, device=features.device)


@dataclass(eq=False)
class ReAttention:
    """Re-attention on one UNet: nothing but while `compared` runs.

    Its two stages are where the decoder's own features have the greatest width and the next: 1280 and 640 channels in
    Stable Diffusion 1, as in FreeU.

    Args:
        skips: s of each stage, for the low frequencies of the skip connection.
        backbones: b of each stage, for the first half of the decoder's own channels, as in FreeU.
        overwrite: As in `re_attended`.
        strength: How much of it.
    """

    skips: tuple[float, float]
    backbones: tuple[float, float]
    overwrite: bool
    strength: float
    listening: bool = False
    rows: Sequence[int] = ()
    size: int = 0
    references: dict[int, Tensor] = field(default_factory=dict)

    def install(self, unet: Any, patches: Patches) -> None:
        """Wrap the decoder's residual layers, where its own features and a skip connection's meet."""
        widths = unet.config.block_out_channels
        stages = list(dict.fromkeys(reversed(widths)))[: len(self.skips)]
        own = widths[-1]
        for place, layer in enumerate(layer for block in unet.up_blocks for layer in block.resnets):
            if own in stages:
                patches.put(layer, "forward", _Joint(self, place, own, stages.index(own), layer).forward)
            own = layer.out_channels

    def compared(
        self, reference: Callable[[], Any], predict: Callable[[], Any], *, rows: Sequence[int], size: int
    ) -> Any:
        """Return what ``predict`` computes, compared with what ``reference`` does.

        Args:
            reference: Runs the UNet on ``rows`` alone, in their order (and perhaps others behind them).
            predict: Runs it on a batch of ``size``; a batch of another size within it is not touched.
            rows: Which of its rows to act on.
            size: See ``predict``.
        """
        try:
            self.rows, self.size, self.listening = rows, size, True
            reference()
            self.listening = False
            return predict()
        finally:
            self.rows, self.listening = (), False
            self.references.clear()


@dataclass(eq=False)
class _Joint:
    """One residual layer of the decoder, given [own features; skip features]."""

    attention: ReAttention
    place: int
    own: int
    stage: int
    layer: nn.Module
    compute: Callable[..., Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.compute = self.layer.forward

    def forward(self, given: Tensor, *args: Any, **options: Any) -> Tensor:
        owner, rows = self.attention, list(self.attention.rows)
        if owner.listening:
            owner.references[self.place] = low_frequencies(given[: len(rows), self.own :])
        elif rows and len(given) == owner.size:
            given = self.moved(given, rows)
        return self.compute(given, *args, **options)

    def moved(self, given: Tensor, rows: list[int]) -> Tensor:
        owner, moved = self.attention, given.clone()
        moved[rows, self.own :] = re_attended(
            given[rows, self.own :],
            owner.references[self.place],
            scale=owner.skips[self.stage],
            overwrite=owner.overwrite,
            strength=owner.strength,
        )
        moved[rows, : self.own // 2] *= 1 + owner.strength * (owner.backbones[self.stage] - 1)
        return moved
