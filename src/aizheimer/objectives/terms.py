r"""What a loss term returns, and how the attention terms reduce a map to a number.

Notation of this package. :math:`A_{b,l,h}` is what head :math:`h` of layer :math:`l` gives to the target in row
:math:`b` of the batch: a vector of :math:`\dim(A_{b,l,h}) = Q_l\, n_b` probabilities (``queries`` of the layer times
target tokens of the row), flattened, without padding. :math:`T` is the number of text tokens under the softmax
(``tokens``, 77 for Stable Diffusion): attention spread evenly gives each token :math:`1/T`. :math:`L` is the number of
layers, :math:`H_l` a layer's heads, :math:`\operatorname{mean}_b` the average over the rows that have a target.

Each attention term measures how far the attention is from a target pattern, in one of three ways:

========== ===================================================================================================
variant    reduction
========== ===================================================================================================
paper      the paper's equation for one sample, averaged over the batch
notebook   what AIzheimer's published notebook computed: batch and heads of a layer pooled into one norm
mean       mean of squares per layer, averaged over layers: independent of image, batch and model size (ours)
========== ===================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer.errors import RecipeError, SelectorError, did_you_mean
from aizheimer.modules.maps import AttentionMap

Variant = Literal["paper", "notebook", "mean"]

VARIANTS: tuple[str, ...] = get_args(Variant)
"""The ways in which an attention term can be normalised."""


@dataclass(frozen=True)
class TermValue:
    """A loss term.

    Attributes:
        total: The scalar to minimise, in the autograd graph.
        parts: What it is made of, by name (for attention terms, by layer): detached scalars, for the log.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


class AttentionTerm(Protocol):
    """An attention loss. All take the same keywords, so that one can be chosen by name; each uses what it needs."""

    def __call__(
        self, maps: Mapping[str, AttentionMap], *, variant: Variant, tokens: int, generator: torch.Generator
    ) -> TermValue:
        """Return the loss of one forward pass's maps."""
        ...


def check_inputs(maps: Mapping[str, AttentionMap], *, variant: str, tokens: int | None = None) -> None:
    """Refuse an unknown variant, missing maps and an impossible number of tokens.

    Raises:
        RecipeError: If the variant is unknown.
        SelectorError: If there are no maps or ``tokens`` is less than 1.
    """
    if variant not in VARIANTS:
        raise RecipeError(
            f"variant: '{variant}' is unknown; wanted one of {', '.join(VARIANTS)}.{did_you_mean(variant, VARIANTS)}"
        )
    if not maps:
        raise SelectorError("An attention term got no attention maps; run a forward pass inside attention_probe first.")
    if tokens is not None and tokens < 1:
        raise SelectorError(f"tokens is {tokens}; wanted the number of text tokens under the softmax, at least 1.")


def residual(attention: AttentionMap, target: Tensor | float) -> Float[Tensor, "batch heads queries n"]:
    """Return attention minus target, zero where a row has no token, in at least single precision."""
    probabilities = attention.probabilities
    probabilities = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    return (probabilities - target) * attention.valid[:, None, None, :]


def sum_of_distances(
    maps: Mapping[str, AttentionMap], targets: Mapping[str, Tensor | float], *, variant: Variant
) -> TermValue:
    r"""Measure how far each layer's attention is from its target, and add the layers up.

    With :math:`D = A - \text{target}`:

    - paper: :math:`\operatorname{mean}_b \sum_l \sum_h \lVert D_{b,l,h} \rVert_2`
    - notebook: :math:`\sum_l \lVert D_l \rVert_2`, one norm over batch, heads, queries and tokens
    - mean: :math:`\frac1L \sum_l \operatorname{mean}_b \operatorname{mean}_{h,q,j} D^2`

    Args:
        maps: Attention by layer.
        targets: For each layer a value that broadcasts against its probabilities.
        variant: The reduction.

    Returns:
        The total; its parts are the layers' values, which sum (mean: average) to the total.
    """
    layers = {name: _distance(attention, targets[name], variant) for name, attention in maps.items()}
    values = torch.stack([value.to(next(iter(layers.values())).device) for value in layers.values()])
    total = values.mean() if variant == "mean" else values.sum()
    return TermValue(total, {name: value.detach() for name, value in layers.items()})


def _distance(attention: AttentionMap, target: Tensor | float, variant: Variant) -> Float[Tensor, ""]:
    difference = residual(attention, target)
    if variant == "notebook":
        return torch.linalg.vector_norm(difference)
    if variant == "paper":
        return attention.mean_over_rows(torch.linalg.vector_norm(difference, dim=(2, 3)).sum(dim=1))
    _, heads, queries, _ = difference.shape
    entries = (heads * queries * attention.valid.sum(dim=1)).clamp(min=1)
    return attention.mean_over_rows(difference.square().sum(dim=(1, 2, 3)) / entries)
