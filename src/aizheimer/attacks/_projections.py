"""Where an attack's steps are brought back to: the simplex, a ball, the vocabulary."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Norm: TypeAlias = Literal["linf", "l2", "free"]
"""The shape of a ball; ``"free"`` is no ball."""


def onto_simplex(values: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    r"""Return the nearest probabilities, :math:`\arg\min_p \lVert p - v\rVert_2` with :math:`p \ge 0, \sum_i p_i = 1`.

    The answer is :math:`\max(v - \theta, 0)`. With :math:`v` sorted downwards, the entries that stay are the largest
    :math:`\rho` for which :math:`v_\rho > \theta_\rho = (\sum_{i \le \rho} v_i - 1)/\rho`, and
    :math:`\theta = \theta_\rho`: exact, without a search for the threshold.

    Args:
        values: Any numbers; each row of the last axis is projected.

    Returns:
        The same shape, rows summing to 1.

    Example:
        >>> onto_simplex(torch.tensor([0.7, 0.5, -1.0]))
        tensor([0.6000, 0.4000, 0.0000])

    References:
        Duchi et al., Efficient Projections onto the l1-Ball for Learning in High Dimensions, ICML 2008, figure 1.
    """
    ordered = values.sort(dim=-1, descending=True).values
    count = torch.arange(1, values.shape[-1] + 1, device=values.device, dtype=values.dtype)
    thresholds = (ordered.cumsum(dim=-1) - 1) / count
    # The condition holds for a beginning of the row, and for its first entry always.
    kept = (ordered > thresholds).sum(dim=-1, keepdim=True).clamp(min=1)
    return (values - thresholds.gather(-1, kept - 1)).clamp(min=0)


def onto_ball(values: Float[Tensor, "*batch dim"], *, norm: Norm, radius: float) -> Float[Tensor, "*batch dim"]:
    r"""Return the nearest vectors of at most this length, each row of the last axis for itself.

    Args:
        values: Vectors.
        norm: ``"linf"`` bounds every entry, ``"l2"`` the row's length, ``"free"`` nothing.
        radius: :math:`r`.

    Returns:
        Clamped entries, or rows scaled by :math:`\min(1, r / \lVert v\rVert_2)`.

    Example:
        >>> onto_ball(torch.tensor([[3.0, 4.0]]), norm="l2", radius=1.0)
        tensor([[0.6000, 0.8000]])
    """
    if norm == "free":
        return values
    if norm == "linf":
        return values.clamp(-radius, radius)
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values * (radius / length.clamp(min=torch.finfo(values.dtype).tiny)).clamp(max=1)


def steepest(gradient: Float[Tensor, "*batch dim"], *, norm: Norm) -> Float[Tensor, "*batch dim"]:
    r"""Return the direction of unit length, in this norm, in which a loss rises most: a step of PGD.

    Args:
        gradient: :math:`g`, each row of the last axis for itself.
        norm: ``"l2"`` gives :math:`g / \lVert g\rVert_2`, the others :math:`\operatorname{sign} g`.

    References:
        Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv:1706.06083, section 2.1.
    """
    if norm != "l2":
        return gradient.sign()
    length = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    return gradient / length.clamp(min=torch.finfo(gradient.dtype).tiny)


def straight_through(gradient: Float[Tensor, "*batch dim"], table: Float[Tensor, "words dim"]) -> Tensor:
    r"""Return the gradient for the probabilities of words of which one was drawn and read.

    What was read is :math:`v = o^\top E` for a one-hot :math:`o` drawn from :math:`p`. Drawing has no gradient; the
    straight-through estimate takes :math:`\partial L/\partial p := \partial L/\partial o = E\,\partial L/\partial v`.
    Entries are cut to [-1, 1], as by the hard tanh of the published code.

    Args:
        gradient: (..., dim) of the loss for the vectors that were read.
        table: :math:`E`, one vector a word.

    Returns:
        (..., words).

    References:
        Zhang et al., UnlearnDiffAtk, arXiv:2310.11868. Hou et al., TextGrad, arXiv:2212.09254.
    """
    return (gradient.to(table) @ table.T).clamp(-1, 1)
