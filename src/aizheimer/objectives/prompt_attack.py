r"""Search for free vectors that bring a concept back: an attack in embedding space.

What the vectors are is the caller's: word vectors before a prompt (AdvUnlearn's soft prompt), rows of an encoded prompt
(Receler), a new word (textual inversion). Here is the search, :math:`\min_v L(v)` over :math:`v` alone, and the part of
a method's settings that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Fidelity = Literal["paper", "repository"]


class AttackPlan(BaseModel):
    """How long and with what an attack searches.

    Example:
        >>> AttackPlan(steps=5).tokens
        1
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tokens: int = Field(default=1, ge=1, description="Free vectors.")
    steps: int = Field(default=30, ge=1, description="Steps of the search.")
    lr: float = Field(default=1e-3, gt=0, description="Length of its steps.")
    rule: Literal["adam", "sign"] = Field(
        default="adam", description="adam; or sign, which steps along the gradient's sign (fast adversarial training)."
    )


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What a search has found.

    Args:
        vectors: (k, dim) the free vectors, detached.
        losses: The loss at every step, before that step was made.
    """

    vectors: Tensor
    losses: tuple[float, ...]


def search_vectors(
    loss: Callable[[Tensor], Tensor], start: Tensor, *, plan: AttackPlan, fidelity: Fidelity = "paper"
) -> Attack:
    r"""Minimise a loss over free vectors; nothing else gets a gradient.

    With ``rule="adam"`` a step is Adam's; with ``"sign"`` it is :math:`v \leftarrow v - \alpha \operatorname{sign} g`.
    ``fidelity="repository"`` does what AdvUnlearn's published code does: the gradient is never cleared, so each step is
    along the sum of all gradients so far; with ``"sign"`` the sum is replaced by its sign and handed to Adam; and the
    vectors returned are those *before* the last step.

    Args:
        loss: A scalar of the vectors; it may draw new examples each time it is called.
        start: (k, dim) where to start; it is not changed.
        plan: Steps, their length and the rule.
        fidelity: ``"paper"`` or ``"repository"``.

    Returns:
        The vectors, and how the loss went.

    Example:
        >>> plan = AttackPlan(steps=2, lr=0.5, rule="sign")
        >>> search_vectors(lambda v: v.square().sum(), torch.tensor([[2.0]]), plan=plan).vectors
        tensor([[1.]])

    References:
        Zhang et al., Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models,
        arXiv:2405.15234, the lower level of its bi-level problem.
    """
    vectors = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([vectors], lr=plan.lr)
    total, before, losses = torch.zeros_like(vectors), vectors.detach().clone(), []
    for _ in range(plan.steps):
        with torch.enable_grad():
            value = loss(vectors)
            (gradient,) = torch.autograd.grad(value, vectors)
        losses.append(float(value.detach()))
        if fidelity == "repository":
            total = total + gradient
            gradient = total = total.sign() if plan.rule == "sign" else total
        before = vectors.detach().clone()
        if plan.rule == "sign" and fidelity == "paper":
            with torch.no_grad():
                vectors -= plan.lr * gradient.sign()
        else:
            vectors.grad = gradient
            optimizer.step()
    found = before if fidelity == "repository" else vectors.detach()
    return Attack(vectors=found, losses=tuple(losses))
