"""From the gradients of separate losses to the one the optimiser sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from aizheimer.errors import InputError
from aizheimer.modules.parameters import part_paths

Gradient = Mapping[str, Tensor]
"""A gradient by parameter name; parameters that have none are left out."""

SUM = "sum"
"""The one key of the gradients a rule gets that does not ask for separate ones."""


class GradientRule(Protocol):
    """Combines the gradients of a step's losses. Without a rule they are added up."""

    @property
    def separate(self) -> bool:
        """Whether it wants a gradient for each role of a loss, instead of their sum under `SUM`."""
        ...

    def __call__(self, gradients: Mapping[str, Gradient]) -> Gradient:
        """Return the gradient to step along. What it leaves out is zero."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConflictProjection:
    r"""Take out of the erasing gradient what would undo retention.

    For every tensor, with the erasing (and adversarial) gradient :math:`g` and the retaining one :math:`g_{pr}`, if
    :math:`\langle g, g_{pr}\rangle < 0`:

    .. math:: g \leftarrow g - \lambda \frac{\langle g, g_{pr}\rangle}{\lVert g_{pr}\rVert^2}\, g_{pr}

    so that at :math:`\lambda = 1` they are orthogonal. The retaining gradient is a direction to respect, and never
    stepped along. The published code subtracts :math:`\cos(g, g_{pr})\, \hat g_{pr}` from a :math:`g` clipped to norm 1
    instead: a correction of unit scale on a gradient that is small, so the result points *along* :math:`g_{pr}`. That
    is ``fidelity="repository"``.

    Args:
        strength: :math:`\lambda`.
        fidelity: ``"paper"`` or ``"repository"``.

    References:
        Wu et al., arXiv:2405.15304 (DoCo), the concept-preserving gradient.
    """

    strength: float = 1.0
    fidelity: Literal["paper", "repository"] = "paper"

    @property
    def separate(self) -> bool:
        """True: it compares two gradients."""
        return True

    def __call__(self, gradients: Mapping[str, Gradient]) -> Gradient:
        """Return the projected erasing gradient."""
        reference = gradients.get("retain", {})
        erase = added([gradient for role, gradient in gradients.items() if role != "retain"])
        if self.fidelity == "repository":
            erase = _clipped(erase, 1.0)
        return {name: self._project(g, reference.get(name)) for name, g in erase.items()}

    def _project(self, gradient: Tensor, reference: Tensor | None) -> Tensor:
        if reference is None:
            return gradient
        g, r = gradient.double(), reference.double()
        inner, power = (g * r).sum(), r.square().sum()
        if inner >= 0 or power == 0:
            return gradient
        scale = inner / power
        if self.fidelity == "repository":
            scale = inner / (g.norm() * power)
        return (g - self.strength * scale * r).to(gradient.dtype)


@dataclass(frozen=True)
class SaliencyMask:
    """Step only where a mask is true.

    Args:
        masks: By parameter name, boolean, of the parameter's shape; see `saliency_masks`.

    References:
        Fan et al., SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency, arXiv:2310.12508, eq. 4.
    """

    masks: Mapping[str, Tensor]

    @property
    def separate(self) -> bool:
        """False: the sum is masked."""
        return False

    def __call__(self, gradients: Mapping[str, Gradient]) -> Gradient:
        """Return the gradient, zero outside the masks."""
        return {name: gradient * self.masks[name] for name, gradient in gradients[SUM].items()}


def saliency_masks(gradients: Gradient, *, fraction: float) -> dict[str, Tensor]:
    """Mark the entries with the largest gradients, over all tensors together.

    Exactly ``round(fraction * entries)`` entries are marked; among equals at the edge the first ones win. The edge is
    found as a k-th value: no sorting of all weights.

    Args:
        gradients: By parameter name.
        fraction: How much to mark, above 0 up to 1.

    Returns:
        Boolean masks of the gradients' shapes.

    Raises:
        InputError: If the fraction is out of range or there are no gradients.

    Example:
        >>> saliency_masks({"w": torch.tensor([0.1, -3.0, 2.0, 0.0])}, fraction=0.5)
        {'w': tensor([False,  True,  True, False])}
    """
    if not 0 < fraction <= 1 or not gradients:
        raise InputError(f"saliency: got the fraction {fraction} of {len(gradients)} tensors; wanted (0, 1] of some.")
    sizes = torch.cat([gradient.detach().abs().flatten() for gradient in gradients.values()])
    keep = round(fraction * sizes.numel())
    if keep == 0:
        raise InputError(f"saliency: the fraction {fraction} of {sizes.numel()} weights keeps none; raise it.")
    edge = torch.kthvalue(sizes, sizes.numel() - keep + 1).values
    marked = sizes > edge
    at_edge = (sizes == edge).nonzero().flatten()
    marked[at_edge[: keep - int(marked.sum())]] = True
    parts = marked.split([gradient.numel() for gradient in gradients.values()])
    return {name: part.view_as(gradients[name]) for name, part in zip(gradients, parts, strict=True)}


@dataclass(frozen=True, kw_only=True)
class EmaStop:
    r"""Stop when the running mean of a loss, or the largest of several, has fallen below a threshold.

    :math:`m_s = \beta m_{s-1} + (1 - \beta) l_s`, starting at the first loss.

    Args:
        loss: Name of the loss whose value is watched.
        others: Names of losses that must have fallen as far.
        part: Name of their part to watch instead, or empty.
        decay: :math:`\beta`, in [0, 1).
        below: The threshold.
        after: Steps that are done in any case.
        means: The running means so far, by loss; empty before the first step.
        steps: Steps seen.
    """

    loss: str
    others: tuple[str, ...] = ()
    part: str = ""
    decay: float = 0.9
    below: float = 1e-4
    after: int = 10
    means: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0

    @property
    def mean(self) -> float | None:
        """The largest running mean; None before the first step."""
        return max(self.means.values(), default=None)

    def seen(self, losses: Mapping[str, Mapping[str, Any]]) -> EmaStop:
        """Return the state after a step, given its losses as the history has them (``value`` and ``parts``)."""
        watched = (self.loss, *self.others)
        if any(name not in losses for name in watched):
            return self
        means = {name: self._next(name, losses[name]) for name in watched}
        return replace(self, means=means, steps=self.steps + 1)

    def _next(self, name: str, loss: Mapping[str, Any]) -> float:
        value = loss["parts"][self.part] if self.part else loss["value"]
        return value if name not in self.means else self.decay * self.means[name] + (1 - self.decay) * value

    @property
    def reached(self) -> bool:
        """Whether it is time to stop."""
        return self.mean is not None and self.steps >= self.after and self.mean < self.below


@contextmanager
def begin_token_detached(denoiser: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Let no gradient through the keys and values of the first token of the prompts.

    Begin-of-text is the same in every prompt and takes most of the attention; training its keys and values would change
    every picture. The values of the forward pass are the same; on leaving, the hooks are gone.

    Args:
        denoiser: The network.
        layers: Names of its modules that attend to text; the text's keys and values are meant.

    References:
        Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, arXiv:2303.13516 (in its code).
    """
    handles = []
    try:
        for layer in layers:
            paths = part_paths(denoiser.get_submodule(layer))
            for part in ("k", "v"):
                module = denoiser.get_submodule(f"{layer}.{paths[part]}")
                handles.append(module.register_forward_hook(_detach_first))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _detach_first(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)


def cosine(a: Gradient, b: Gradient) -> float | None:
    """Return the cosine of two gradients over all tensors together; None where one of them is zero."""
    inner = sum(float((a[name].double() * b[name].double()).sum()) for name in a if name in b)
    powers = [sum(float(tensor.double().square().sum()) for tensor in gradient.values()) for gradient in (a, b)]
    return inner / (powers[0] * powers[1]) ** 0.5 if all(powers) else None


def added(gradients: Sequence[Gradient]) -> dict[str, Tensor]:
    """Return the sum of gradients, by parameter name."""
    total: dict[str, Tensor] = {}
    for gradient in gradients:
        for name, tensor in gradient.items():
            total[name] = total[name] + tensor if name in total else tensor
    return total


def _clipped(gradient: Gradient, norm: float) -> dict[str, Tensor]:
    length = torch.stack([tensor.norm() for tensor in gradient.values()]).norm() if gradient else torch.zeros(())
    factor = (norm / (length + 1e-6)).clamp(max=1.0)
    return {name: tensor * factor for name, tensor in gradient.items()}
