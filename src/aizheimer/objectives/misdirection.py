"""Misdirection: move what a network says of a concept to somewhere that has nothing to do with it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aizheimer.errors import InputError
from aizheimer.objectives.noise_target import masked_mse
from aizheimer.objectives.terms import TermValue


def random_direction(*shape: int, generator: torch.Generator) -> Tensor:
    r"""Return a random tensor of norm 1 with positive entries: :math:`u / \lVert u\rVert_2`, :math:`u \sim U(0, 1)`.

    Args:
        *shape: ``(dim,)`` for one direction; of ``(tokens, dim)`` the norm is that of the whole.
        generator: Draws it, on its own device.
    """
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return drawn / torch.linalg.vector_norm(drawn)


def misdirection(
    hidden: Float[Tensor, "batch tokens dim"],
    target: Float[Tensor, "batch tokens dim"],
    *,
    rows: Bool[Tensor, "batch tokens"],
) -> TermValue:
    r"""Ask a layer for other rows than it gives.

    .. math:: L = \frac{1}{d \sum_i m_i} \sum_i m_i \lVert h_i - y_i \rVert^2

    with :math:`y = c\,\hat r`, a random direction or what a super-category's prompt gives. No gradient flows into it.

    Args:
        hidden: The layer's output, :math:`h`.
        target: :math:`y`.
        rows: True at the tokens that count, :math:`m`.

    Returns:
        The mean over the marked rows; one part, "misdirection".

    Raises:
        InputError: If the shapes of hidden and target differ, or no row is marked.

    References:
        Lee, Kim, Hwang: Localized Concept Erasure in Text-to-Image Diffusion Models via High-Level Representation
        Misdirection, arXiv:2602.19631.
    """
    if not bool(rows.any()):
        raise InputError("misdirection: got no row to move; mark at least one token.")
    total = masked_mse(hidden, target, rows[..., None].to(hidden.device)).total
    return TermValue(total, {"misdirection": total.detach()})
