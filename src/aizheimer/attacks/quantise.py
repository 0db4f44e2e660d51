"""Round the edited weights to a few bits: what an edit moved by less than a step is rounded away."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from aizheimer._seeding import generator_for
from aizheimer.attacks._cells import best_cell
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.backbones.families import FAMILIES
from aizheimer.modules.parameters import swapped

ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights are rounded: their first axis is the output channel. Biases and norms are left, as is usual."""


class Quantise(BaseModel):
    r"""Draw with the denoiser's weights rounded to 8 or 4 bits, symmetric, one step for each output channel.

    .. math:: s_o = \frac{\max_i |W_{oi}|}{2^{b-1} - 1}, \qquad W'_{oi} = s_o \operatorname{round}(W_{oi} / s_o)

    Simulated: the rounded values are computed with in the model's own type. What a hook adds while drawing is not
    rounded. The random control moves every weight by a uniform number of up to half a step in place of rounding.

    Example:
        >>> Quantise(bits=(4,)).bits
        (4,)

    References:
        Zhang et al., Catastrophic Failure of LLM Unlearning via Quantization, arXiv:2410.16454 (language models);
        rounding: Jacob et al., arXiv:1712.05877, equation 1 without a zero point.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "quantise"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Zhang et al., Catastrophic Failure of LLM Unlearning via Quantization, arXiv:2410.16454",
        access="grey box",
        changes="the weights, by rounding",
        needs=("judge",),
        families=tuple(FAMILIES),
    )

    bits: tuple[Literal[8, 4], ...] = Field(
        default=(8, 4), min_length=1, description="Bits of a weight; with several the best counts, all are told."
    )

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Draw the jobs with rounded weights; the weights are back, bit for bit, afterwards."""
        weights = rounded_weights(subject.backbone.denoiser)
        cells = {f"int{bits}": partial(self._drawn, subject, weights, bits=bits) for bits in self.bits}
        errors: dict[str, Any] = {
            f"int{bits}": _relative_error(weights, bits=bits) for bits in dict.fromkeys(self.bits)
        }
        return best_cell(subject, cells, progress=progress, tensors=len(weights), relative_error=errors)

    def _drawn(self, subject: Subject, weights: dict[str, Tensor], *, bits: int) -> np.ndarray:
        generator = generator_for(subject.settings.seed, "quantise", bits) if subject.random else None
        changed = {
            name: quantised(weight, bits=bits) if generator is None else shaken(weight, bits=bits, generator=generator)
            for name, weight in weights.items()
        }
        with swapped(subject.backbone.denoiser, changed):
            return subject.draw(subject.jobs)


def rounded_weights(denoiser: nn.Module) -> dict[str, Tensor]:
    """Return the weights that are rounded, by name; the parameters themselves, not copies."""
    return {
        f"{name}.weight": module.weight.detach()
        for name, module in denoiser.named_modules()
        if isinstance(module, ROUNDED)
    }


def steps_of(weight: Tensor, *, bits: int) -> Tensor:
    """Return the step of every output channel, float32 (outputs, 1, ...), to multiply the weight; 1 where all are 0."""
    largest = weight.float().flatten(1).abs().amax(dim=1) / (2 ** (bits - 1) - 1)
    return torch.where(largest > 0, largest, 1.0).reshape(-1, *[1] * (weight.ndim - 1))


def quantised(weight: Tensor, *, bits: int) -> Tensor:
    """Return a weight rounded to the nearest steps (halves to even), in its own type.

    Example:
        >>> quantised(torch.tensor([[7.0, 3.4, -0.6]]), bits=4).tolist()
        [[7.0, 3.0, -1.0]]
    """
    step = steps_of(weight, bits=bits)
    return ((weight.float() / step).round() * step).to(weight.dtype)


def shaken(weight: Tensor, *, bits: int, generator: torch.Generator) -> Tensor:
    """Return a weight with uniform noise of up to half a step either way: of rounding's size, and without its grid."""
    noise = torch.rand(weight.shape, generator=generator).to(weight.device) - 0.5
    return (weight.float() + noise * steps_of(weight, bits=bits)).to(weight.dtype)


def _relative_error(weights: dict[str, Tensor], *, bits: int) -> float:
    """Return the length of what rounding changes, as a share of the weights' own length."""
    lost = sum(float((quantised(w, bits=bits) - w).double().square().sum()) for w in weights.values())
    whole = sum(float(w.double().square().sum()) for w in weights.values())
    return (lost / whole) ** 0.5 if whole else 0.0
