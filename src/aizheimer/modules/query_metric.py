r"""Closed-form distraction: move keys only as far as the image's queries can see, in one linear solve.

AIzheimer trains a loop until no query attends to the concept. What a query sees of a token is one number a head,
:math:`q \cdot W e_t`, so the loop's goal is a least-squares problem in the key projection :math:`W`. For target rows
:math:`e_t` with anchor rows :math:`e_a`, and retained rows :math:`e_r`,

.. math::
    J(W') = \sum_t \alpha_t\, \mathbb{E}_q \big(q \cdot (W' e_t - W e_a)\big)^2
          + \bar c \sum_r \beta_r \lVert (W' - W) e_r \rVert^2 + \bar c\, \lambda \lVert W' - W \rVert_F^2 ,

where the expectation is :math:`\lVert \cdot \rVert^2_C` with :math:`C = \mathbb{E}[q q^\top]`, the queries' second
moment in one head, and :math:`\bar c = \operatorname{tr} C / d` puts the terms on one scale. When the anchors' keys are
those of a prompt about nothing, a target token gets the attention that nothing gets: the logits of the softmax agree.

Setting the gradient to zero gives :math:`C \Delta T + \bar c\, \Delta P = C W (A - T)` with
:math:`\Delta = W' - W`, :math:`T = \sum \alpha\, e_t e_t^\top`, :math:`A = \sum \alpha\, e_a e_t^\top` and
:math:`P = \sum \beta\, e_r e_r^\top + \lambda I`. In the eigenbasis of :math:`C = U \operatorname{diag}(s) U^\top` rows
fall apart, :math:`u_i^\top \Delta = s_i\, u_i^\top W (A - T) (s_i T + \bar c P)^{-1}`, and the generalised
eigenvectors of :math:`(T, P)`, which depend on the text alone, invert all of them at once, in every layer and head.
Directions that no query looks along (:math:`s_i = 0`) stay exactly as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aizheimer.errors import SelectorError
from aizheimer.modules.kept_queries import heard_queries
from aizheimer.modules.ridge import RidgeSums


@dataclass(frozen=True, kw_only=True)
class TextPencil:
    r"""The text side of the problem, solved once: generalised eigenvectors of :math:`(T, P)`.

    Args:
        vectors: (dim, dim) :math:`X` with :math:`X^\top P X = I` and :math:`X^\top T X = \operatorname{diag}(\theta)`.
        values: (dim,) :math:`\theta`, not negative.
        drift: (dim, dim) :math:`A - T`: what the targets should move by.
    """

    vectors: Float[Tensor, "dim dim"]
    values: Float[Tensor, " dim"]
    drift: Float[Tensor, "dim dim"]

    @classmethod
    def of(cls, erase: RidgeSums, retained: Tensor, *, ridge: float) -> TextPencil:
        r"""Decompose the moments.

        Args:
            erase: Sums of the text alone: :math:`T = \sum \alpha\, e_t e_t^\top` is their Gram matrix,
                :math:`A = \sum \alpha\, e_a e_t^\top` their numerator.
            retained: (dim, dim) :math:`\sum \beta\, e_r e_r^\top`.
            ridge: :math:`\lambda`, more than 0.

        Raises:
            SelectorError: If the ridge is not positive: without it the retained rows may leave directions free.
        """
        if not ridge > 0:
            raise SelectorError(f"ridge: got {ridge}; wanted more than 0, such as 0.01 of the retained rows' size.")
        targets, cross, retained = erase.gram, erase.numerator, retained.double()
        held = retained + ridge * torch.eye(len(retained), dtype=torch.float64, device=retained.device)
        factor = torch.linalg.cholesky((held + held.T) / 2)
        half = torch.linalg.solve_triangular(factor, (targets + targets.T) / 2, upper=False)
        whitened = torch.linalg.solve_triangular(factor, half.T, upper=False)
        values, basis = torch.linalg.eigh((whitened + whitened.T) / 2)
        vectors = torch.linalg.solve_triangular(factor.T, basis, upper=True)
        return cls(vectors=vectors, values=values.clamp(min=0), drift=cross - targets)

    def held(self, firmness: float) -> TextPencil:
        r"""Return the pencil of :math:`(T, f P)`, with :math:`f > 0`, without another decomposition."""
        return TextPencil(vectors=self.vectors / math.sqrt(firmness), values=self.values / firmness, drift=self.drift)


def solve_keys(
    weight: Float[Tensor, "out dim"], metric: Float[Tensor, "heads size size"], pencil: TextPencil
) -> Float[Tensor, "out dim"]:
    r"""Return the change of a key projection that minimises :math:`J`.

    Args:
        weight: The projection; its rows are the heads one after the other.
        metric: :math:`C` of each head, ``out == heads * size``. The identity gives ordinary ridge regression, the
            problem of UCE.
        pencil: The text side.

    Returns:
        :math:`\Delta`, float64. Zero for a head whose queries are all zero.

    Raises:
        SelectorError: If the heads do not make up the projection's rows.
    """
    heads, size, _ = metric.shape
    if heads * size != len(weight):
        raise SelectorError(
            f"A metric of {heads} heads of {size} does not fit a projection of {len(weight)} rows; "
            "measure the queries of the same layer."
        )
    metric = metric.double()
    scale, basis = torch.linalg.eigh((metric + metric.transpose(1, 2)) / 2)
    scale = scale.clamp(min=0)
    average = scale.mean(dim=1, keepdim=True)
    rows = basis.transpose(1, 2) @ (weight.double().unflatten(0, (heads, size)) @ pencil.drift)
    # s_i (s_i theta + c)^-1, and nothing at all where there are no queries: 0 / 0.
    denominator = scale[..., None] * pencil.values + average[..., None]
    gain = torch.where(denominator > 0, scale[..., None] / denominator, torch.zeros_like(denominator))
    change = ((rows @ pencil.vectors) * gain) @ pencil.vectors.T
    return (basis @ change).flatten(0, 1)


@dataclass
class QueryMoments:
    """Sums of outer products of queries, in float64, by layer and head."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, layer: str, queries: Tensor, heads: int) -> None:
        """Add queries (batch, pixels, heads * size) of a layer."""
        rows = queries.detach().double().flatten(0, -2).unflatten(1, (heads, -1))
        outer = torch.einsum("nhi,nhj->hij", rows, rows)
        self.sums[layer] = self.sums[layer] + outer if layer in self.sums else outer
        self.counts[layer] = self.counts.get(layer, 0) + len(rows)

    def metric(self, layer: str) -> Float[Tensor, "heads size size"]:
        """Return the mean outer product of a layer's queries.

        Raises:
            SelectorError: If no query of the layer was seen.
        """
        if not self.counts.get(layer):
            raise SelectorError(f"No query of layer '{layer}' was seen; run the denoiser inside query_moments first.")
        return self.sums[layer] / self.counts[layer]


@contextmanager
def query_moments(modules: Mapping[str, nn.Module]) -> Iterator[QueryMoments]:
    """Collect the queries' second moments of attention modules while the denoiser runs.

    Args:
        modules: Attention modules by name, with ``to_q`` and ``heads``, as `Backbone.attention_modules` gives.

    Yields:
        The moments, filled by every forward pass inside the block. The hooks are gone after it.
    """
    moments = QueryMoments()
    with heard_queries(modules, moments.add):
        yield moments
