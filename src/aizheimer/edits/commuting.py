"""Does it matter in which order edits are put on? Changes of weights add up; behaviours are tried both ways."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.edits.edit import Edit

TOLERANCE = 1e-3
"""Relative distance of latents up to which two orders are the same: rounding that a few steps have magnified."""


@dataclass(frozen=True, kw_only=True)
class OrderedPair:
    r"""Two edits, and what their order changes.

    Args:
        first: Place of the one edit in the list that was checked.
        second: Place of the other.
        apart: :math:`\lVert x_{ab} - x_{ba} \rVert / \lVert x_{ab} \rVert` of the latents drawn in both orders, the
            largest over the prompts; 0 for two changes of weights.
        measured: Whether both orders were drawn; two changes of weights need not be.
    """

    first: int
    second: int
    apart: float
    measured: bool

    @property
    def commutes(self) -> bool:
        """Whether the order does not matter."""
        return self.apart <= TOLERANCE


def order_check(
    edits: Sequence[Edit],
    backbone: Backbone,
    *,
    prompts: Sequence[str] = (),
    steps: int = 4,
    seed: int = 0,
) -> list[OrderedPair]:
    """Try every two edits in both orders.

    Args:
        edits: Of this base.
        backbone: The base, as it was afterwards.
        prompts: What to draw; by default a prompt of each of the two concepts.
        steps: Denoising steps.
        seed: Of the noise.

    Returns:
        Every pair, in the order of the list.

    Raises:
        EditError: If one was made for another base.
    """
    found = []
    for i, j in itertools.combinations(range(len(edits)), 2):
        pair = (edits[i], edits[j])
        if all(edit.hook is None for edit in pair):
            found.append(OrderedPair(first=i, second=j, apart=0.0, measured=False))
            continue
        texts = list(prompts) or [backbone.world.prompts(edit.provenance.concept.to_concept())[0] for edit in pair]
        one, other = (_drawn(backbone, order, texts, steps=steps, seed=seed) for order in (pair, pair[::-1]))
        gaps = (one - other).flatten(1).norm(dim=1) / one.flatten(1).norm(dim=1).clamp(min=1e-12)
        found.append(OrderedPair(first=i, second=j, apart=float(gaps.max()), measured=True))
    return found


def _drawn(backbone: Backbone, edits: Sequence[Edit], prompts: list[str], *, steps: int, seed: int) -> Tensor:
    """Return latents (prompts, ...) drawn with edits put on in this order."""
    pipe: Any = backbone.pipe
    noise = torch.randn(len(prompts), *backbone.latent_shape, generator=generator_for(seed, "order check"))
    handles = []
    try:
        for edit in edits:
            handles.append(edit.apply_to(pipe))
        return pipe(
            prompts,
            latents=backbone.for_pipeline(noise.to(backbone.device, backbone.dtype)),
            num_inference_steps=steps,
            guidance_scale=backbone.world.guidance,
            output_type="latent",
            **backbone.pipeline_options,
        ).images.float()
    finally:
        for handle in reversed(handles):
            handle.remove()
