"""Prompt embeddings that no prompt has: random ones of a concept's length, not too similar to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SCALES = (0.8, 1.2)
"""Between which shares of the concept's length a random embedding's length is drawn."""


def random_embeddings(
    concepts: Float[Tensor, "batch tokens dim"], count: int, *, generator: torch.Generator
) -> Float[Tensor, "rows tokens dim"]:
    r"""Draw random embeddings for each concept, the rarer the more they resemble it.

    .. math:: a = s\,\lVert E(c)\rVert_F\, z / \lVert z\rVert_F, \quad z \sim N(0, I), \quad s \sim U(0.8, 1.2),

    where z is accepted with probability :math:`1 - \cos(z, E(c))`, over all entries. In the tens of thousands of
    dimensions of an embedding that cosine is nearly zero, so nearly every z is.

    Args:
        concepts: :math:`E(c)`.
        count: Embeddings for each concept.
        generator: A CPU generator.

    Returns:
        ``batch * count`` embeddings, those of the first concept first, on the concepts' device.

    References:
        Lyu et al., One-dimensional Adapter to Rule Them All, arXiv:2312.16145, section 3.2 (latent anchoring).
    """
    rows = []
    for concept in concepts:
        flat = concept.flatten().cpu().double()
        for _ in range(count):
            z = _accepted(flat, generator)
            scale = SCALES[0] + (SCALES[1] - SCALES[0]) * torch.rand((), generator=generator, dtype=z.dtype)
            rows.append((scale * flat.norm() * z / z.norm()).reshape(concept.shape))
    return torch.stack(rows).to(concepts)


def _accepted(concept: Tensor, generator: torch.Generator) -> Tensor:
    while True:
        z = torch.randn(concept.shape, generator=generator, dtype=concept.dtype)
        if torch.rand((), generator=generator) < 1 - F.cosine_similarity(z, concept, dim=0):
            return z
