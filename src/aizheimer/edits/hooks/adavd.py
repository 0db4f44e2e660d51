"""AdaVD: take the concept's direction out of the values that cross-attention reads from the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.calls import CallWatch
from aizheimer.errors import EditError, did_you_mean

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

ROWS = "rows"


def shift(cosine: Tensor, *, slope: float, centre: float, height: float) -> Tensor:
    r"""Return :math:`\sigma(x) = c / (1 + e^{-a(x - b)})`: how much of a value's part along the target goes.

    Args:
        cosine: :math:`x`, of a value with the target's.
        slope: :math:`a`.
        centre: :math:`b`, where half of ``height`` goes.
        height: :math:`c`; 1 projects the part away at most, 2 reflects it.
    """
    return height * torch.sigmoid(slope * (cosine - centre))


def target_part(
    values: Float[Tensor, "batch tokens channels"],
    targets: Float[Tensor, "targets channels"] | Float[Tensor, "batch targets tokens channels"],
    *,
    weight: Callable[[Tensor], Tensor],
) -> Float[Tensor, "batch tokens channels"]:
    r"""Return what to subtract from values: their parts along the targets, each times its own weight.

    For one target :math:`\sigma(\cos(v, v_t)) \frac{\langle v, v_t\rangle}{\|v_t\|^2} v_t`. For several the
    coefficients are those of v's projection on the space they span (Gram-Schmidt, written in the targets themselves),
    each scaled by the weight of its own target. The begin-of-text token (the first) loses nothing.

    Args:
        values: One row a token, heads side by side.
        targets: The targets' values: one row for every token, or a row for each token.
        weight: :math:`\sigma`, of the cosine.
    """
    v = values.double()
    basis = targets.double()
    if basis.ndim == 2:
        basis = basis[None, :, None, :]
    gram = torch.einsum("bntc,bmtc->btnm", basis, basis)
    dots = torch.einsum("bntc,btc->btn", basis.expand(len(v), -1, v.shape[1], -1), v)
    coefficients = torch.einsum("btnm,btm->btn", torch.linalg.pinv(gram, hermitian=True), dots)
    lengths = torch.diagonal(gram, dim1=-2, dim2=-1).sqrt() * v.norm(dim=-1, keepdim=True)
    cosines = torch.where(lengths > 0, dots / lengths.clamp(min=torch.finfo(v.dtype).tiny), torch.zeros_like(dots))
    part = torch.einsum("btn,bntc->btc", weight(cosines) * coefficients, basis.expand(len(v), -1, v.shape[1], -1))
    part[:, 0] = 0
    return part.to(values.dtype)


@dataclass(frozen=True, eq=False)
class AdaVDHook:
    r"""Take the part along the target out of every cross-attention's values.

    .. math:: v' = v - s\,\sigma(\cos(v, v_t)) \frac{\langle v, v_t\rangle}{\|v_t\|^2} v_t

    :math:`v_t` is the value of the concept's last token, computed with the weights as they are while drawing. Values
    depend on the prompt only, so no step or scheduler matters. Outside of a guided loop every row counts as a prompt's.

    Args:
        rows: The targets' token embeddings (targets, dim).
        layers: Attention modules by name.
        slope: :math:`a`.
        centre: :math:`b`.
        height: :math:`c`.
        gate: ``"shift"`` is :math:`\sigma`; ``"projection"`` takes the whole part, :math:`\sigma = 1`.
        joint: Decompose unconditional and conditional values as one vector, as the repository does, so that the
            unconditional ones are changed as well; without guidance there are none, and the prompt's are taken alone.
    """

    name: ClassVar[str] = "adavd"
    rows: Tensor
    layers: tuple[str, ...]
    slope: float
    centre: float
    height: float
    gate: str = "shift"
    joint: bool = False

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The targets' token embeddings."""
        return {ROWS: self.rows}

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything else."""
        numbers = {"slope": self.slope, "centre": self.centre, "height": self.height}
        return {"layers": list(self.layers), **numbers, "gate": self.gate, "joint": self.joint}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook with these rows and settings."""
        return cls(rows=tensors[ROWS], **{**settings, "layers": tuple(settings["layers"])})

    def weight(self, cosine: Tensor) -> Tensor:
        """Return how much of the part along a target goes, at that cosine."""
        if self.gate == "projection":
            return torch.ones_like(cosine)
        return shift(cosine, slope=self.slope, centre=self.centre, height=self.height)

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Wrap the value projection of every layer."""
        modules = dict(pipe.unet.named_modules())
        for layer in self.layers:
            if not isinstance(getattr(modules.get(layer), "to_v", None), nn.Module):
                near = did_you_mean(layer, [name for name in modules if name.endswith("attn2")])
                raise EditError(f"this pipeline has no value projection in '{layer}'.{near} Load the edit's base")
        patches, watch = Patches(), CallWatch(pipe)
        watch.install(patches)
        for layer in self.layers:
            projection = modules[layer].to_v
            patches.put(projection, "forward", _Values(self, watch, projection.forward, strength).forward)
        return patches


@dataclass(eq=False)
class _Values:
    """One layer's value projection with the hook on it."""

    hook: AdaVDHook
    watch: CallWatch
    project: Callable[..., Tensor]
    strength: float
    empty: Tensor | None = field(default=None)

    def forward(self, hidden: Tensor, *args: Any, **options: Any) -> Tensor:
        values = self.project(hidden, *args, **options)
        if values.ndim != 3:
            return values
        targets = self.project(self.hook.rows.to(hidden), *args, **options)
        rows = self.watch.conditional_rows(len(values))
        if self.hook.joint and rows.start:
            return values - self.strength * self._joint(values, targets)
        part = torch.zeros_like(values)
        part[rows] = target_part(values[rows], targets, weight=self.hook.weight)
        return values - self.strength * part

    def _joint(self, values: Tensor, targets: Tensor) -> Tensor:
        """Return the parts of vectors [null value; prompt value] along [null value; target value]."""
        null, prompt = values.chunk(2)
        batch, tokens, _ = null.shape
        size = (batch, len(targets), tokens, -1)
        both = torch.cat([null[:, None].expand(size), targets[None, :, None].expand(size)], dim=-1)
        part = target_part(torch.cat([null, prompt], dim=-1), both, weight=self.hook.weight)
        return torch.cat(part.chunk(2, dim=-1))
