r"""Small trainable additions to what some modules of a denoiser compute, whose own weights stay as they are.

Two kinds. `LowRank` adds :math:`\tfrac1r U D x` to what a linear layer or a 1 x 1 convolution makes of its input x: a
change of its weight, of rank r. `Bottleneck` adds :math:`U \operatorname{GELU}(D h + b) + b'` to a module's output h,
which no weight can express. Both start as nothing: :math:`U = 0` and :math:`b' = 0`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter

from aizheimer.errors import SelectorError


class Adapter(Protocol):
    """What is added to one module's output; a frozen dataclass whose fields are all tensors."""

    def __call__(self, given: Tensor, output: Tensor) -> Tensor:
        """Return the addition.

        Args:
            given: The module's first argument, with the batch first.
            output: What the module made of it.
        """
        ...


A = TypeVar("A", bound=Adapter)


@dataclass(frozen=True, eq=False)
class LowRank:
    r"""The addition :math:`\tfrac1r U D x` to a linear layer or a 1 x 1 convolution: alpha over rank with alpha 1.

    Args:
        down: :math:`D`.
        up: :math:`U`.
    """

    down: Float[Tensor, "rank inputs"]
    up: Float[Tensor, "outputs rank"]

    def __call__(self, given: Tensor, output: Tensor) -> Tensor:
        """Return the addition; ``output`` tells only by its axes that the module is a convolution."""
        down, up = self.down.to(given), self.up.to(given)
        if output.ndim == 4:
            change = F.conv2d(F.conv2d(given, down[:, :, None, None]), up[:, :, None, None])
        else:
            change = F.linear(F.linear(given, down), up)
        return change / len(self.down)

    @property
    def weight(self) -> Float[Tensor, "outputs inputs"]:
        """The same as a change of the module's weight, float32."""
        return self.up.float() @ self.down.float() / len(self.down)

    @classmethod
    def new(cls, module: nn.Linear | nn.Conv2d, *, rank: int, generator: torch.Generator) -> LowRank:
        r"""Return an adapter that adds nothing yet: D uniform in :math:`\pm\sqrt{3 / inputs}` (Kaiming), U zero."""
        outputs, inputs = module.weight.shape[:2]
        down = _uniform(module.weight, rank, inputs, bound=math.sqrt(3 / inputs), generator=generator)
        return cls(down=down, up=Parameter(module.weight.new_zeros(outputs, rank)))


@dataclass(frozen=True, eq=False)
class Bottleneck:
    r"""The addition :math:`U \operatorname{GELU}(D h + b) + b'` to a module's output h, its channels last.

    Args:
        down: :math:`D`.
        down_bias: :math:`b`.
        up: :math:`U`.
        up_bias: :math:`b'`.
    """

    down: Float[Tensor, "width channels"]
    down_bias: Float[Tensor, " width"]
    up: Float[Tensor, "channels width"]
    up_bias: Float[Tensor, " channels"]

    def __call__(self, given: Tensor, output: Tensor) -> Tensor:
        """Return the addition; ``given`` does not matter."""
        inner = F.gelu(F.linear(output, self.down.to(output), self.down_bias.to(output)))
        return F.linear(inner, self.up.to(output), self.up_bias.to(output))

    @classmethod
    def new(cls, like: Tensor, *, channels: int, width: int, generator: torch.Generator) -> Bottleneck:
        r"""Return an adapter that adds nothing yet: D and b uniform in :math:`\pm 1/\sqrt{channels}`, the rest zero.

        Args:
            like: A weight of the module, for device and number format.
            channels: Of the module's output.
            width: Of the bottleneck.
            generator: Draws D, then b.
        """
        bound = 1 / math.sqrt(channels)
        return cls(
            down=_uniform(like, width, channels, bound=bound, generator=generator),
            down_bias=_uniform(like, width, bound=bound, generator=generator),
            up=Parameter(like.new_zeros(channels, width)),
            up_bias=Parameter(like.new_zeros(channels)),
        )


class Adapters:
    """Adapters on some modules of a denoiser, for training.

    Args:
        denoiser: The network.
        adapters: Adapter by the module's name.

    Attributes:
        additions: What each adapter added in the latest forward pass, in the autograd graph.
    """

    def __init__(self, denoiser: nn.Module, adapters: Mapping[str, Adapter]) -> None:
        self.denoiser, self.adapters = denoiser, dict(adapters)
        self.additions: dict[str, Tensor] = {}
        self._on = True

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The adapters' tensors, as `flat` names them."""
        return {name: tensor for name, tensor in flat(self.adapters).items() if isinstance(tensor, Parameter)}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Add to the modules' outputs during a ``with`` block."""
        handles = []
        try:
            for name, adapter in self.adapters.items():
                module = self.denoiser.get_submodule(name)
                handles.append(module.register_forward_hook(self._adding(name, adapter)))
            yield
        finally:
            self.additions.clear()
            for handle in handles:
                handle.remove()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave the additions out for the length of a ``with`` block: the frozen model."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def _adding(self, name: str, adapter: Adapter) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self._on:
                return output
            self.additions[name] = adapter(inputs[0], output)
            return output + self.additions[name]

        return hook


def flat(adapters: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """Return the adapters' tensors by ``"<module>.<field>"``; `grouped` reads them back."""
    return {
        f"{module}.{field.name}": getattr(adapter, field.name)
        for module, adapter in adapters.items()
        for field in fields(adapter)  # pyright: ignore[reportArgumentType]  (a Protocol cannot say "dataclass")
    }


def grouped(kind: type[A], tensors: Mapping[str, Tensor]) -> dict[str, A]:
    """Return adapters of one kind by module.

    Args:
        kind: `LowRank` or `Bottleneck`.
        tensors: By ``"<module>.<field>"``.

    Raises:
        TypeError: If a module misses one of the kind's fields, or has another.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, field = name.rpartition(".")
        parts.setdefault(module, {})[field] = tensor
    return {module: kind(**own) for module, own in parts.items()}


def transformer_projections(denoiser: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return every linear layer and 1 x 1 convolution in the denoiser's transformers, by name.

    Both attentions, feed-forward, and the projections into and out of the transformer.

    Raises:
        SelectorError: If there is none.
    """
    found: dict[str, nn.Linear | nn.Conv2d] = {}
    for prefix, transformer in denoiser.named_modules():
        if not isinstance(transformer, Transformer2DModel):
            continue
        for name, module in transformer.named_modules(prefix=prefix):
            if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
                found[name] = module
    if not found:
        raise SelectorError(
            f"{type(denoiser).__name__} has no linear layer in a Transformer2DModel to put an adapter on; wanted a "
            "Stable Diffusion UNet."
        )
    return found


def _uniform(like: Tensor, *shape: int, bound: float, generator: torch.Generator) -> Parameter:
    drawn = torch.rand(shape, generator=generator) * (2 * bound) - bound
    return Parameter(drawn.to(like))
