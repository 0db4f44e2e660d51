"""What a layer attends to: the probabilities of the target tokens, their mass, and their heat-map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aizheimer.errors import InputError


@dataclass(frozen=True)
class AttentionMap:
    """The attention probabilities of one layer's target tokens.

    Attributes:
        probabilities: (batch, heads, queries, n): how much of its attention, in [0, 1], each query (pixel) of each head
            gives to each target token. The softmax runs over all tokens of the prompt, so a row sums to at most 1.
            Rows with fewer target tokens than n are padded with zeros on the right.
        valid: (batch, n): which of the n columns are real in each row.
    """

    probabilities: Float[Tensor, "batch heads queries n"]
    valid: Bool[Tensor, "batch n"]

    @property
    def has_target(self) -> Bool[Tensor, " batch"]:
        """Rows with at least one target token; the others take no part in any mean."""
        return self.valid.any(dim=1)

    def mean_over_rows(self, values: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Average one value per row over the rows that have a target."""
        return values.masked_fill(~self.has_target, 0.0).sum() / self.has_target.sum()


def mass(maps: Mapping[str, AttentionMap]) -> dict[str, Float[Tensor, ""]]:
    """Measure the share of its attention that each layer gives to the target: its attention mass.

    Args:
        maps: Attention maps by layer, as a probe collects them.

    Returns:
        Per layer, a scalar in [0, 1]: the target's columns summed, averaged over batch, heads and queries. Rows without
        a target do not count.
    """
    return {
        layer: attention.mean_over_rows(attention.probabilities.sum(dim=-1).mean(dim=(1, 2)))
        for layer, attention in maps.items()
    }


def heatmap(attention: AttentionMap, height: int, width: int) -> Float[Tensor, "batch height width"]:
    """Paint a layer's attention to the target over the image.

    Args:
        attention: One layer's map.
        height: Height of the picture to paint, in pixels; also tells the aspect ratio of the layer's own grid.
        width: Width of the picture.

    Returns:
        (batch, height, width): attention to all target tokens together, in [0, 1], averaged over heads, enlarged
        bilinearly from the layer's grid.

    Raises:
        InputError: If the layer's queries cannot be a halved version of ``height`` x ``width``.
    """
    queries = attention.probabilities.shape[2]
    rows, columns = grid_size(queries, height, width)
    values = attention.probabilities.float().sum(dim=-1).mean(dim=1).unflatten(1, (rows, columns))
    enlarged = F.interpolate(values[:, None], size=(height, width), mode="bilinear", align_corners=False)
    return enlarged[:, 0]


def grid_size(queries: int, height: int, width: int) -> tuple[int, int]:
    """Find the power of two that shrinks height x width to ``queries`` cells; odd sizes round up, as strides do."""
    for power in range(max(height, width).bit_length() + 1):
        rows, columns = -(-height // 2**power), -(-width // 2**power)
        if rows * columns == queries:
            return rows, columns
    raise InputError(
        f"A layer of {queries} queries is no halved version of {height} x {width} pixels; "
        "give the height and width of the image, or of the latents, that was denoised."
    )
