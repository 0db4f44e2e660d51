"""Put adapters on a pipeline's modules: what hooks with adapters have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from aizheimer.edits.hook import Patches
from aizheimer.errors import EditError, did_you_mean
from aizheimer.modules.adapters import Adapter


@dataclass(eq=False)
class Gain:
    """What additions are multiplied by; one for all adapters of a hook.

    Args:
        strength: The same for all.
        rows: (batch,) a factor for each row of the batch that is being computed; None for 1.
    """

    strength: float
    rows: Tensor | None = None

    def of(self, addition: Tensor) -> Tensor:
        """Return the addition (batch, ...) times its factors."""
        if self.rows is None:
            return self.strength * addition
        rows = self.rows.to(addition).reshape(-1, *[1] * (addition.ndim - 1))
        return self.strength * rows * addition


@dataclass(eq=False)
class Added:
    """One module with an adapter on it.

    Args:
        adapter: What is added.
        gain: How much of it.
        compute: The module's own forward.
    """

    adapter: Adapter
    gain: Gain
    compute: Callable[..., Tensor]

    def forward(self, given: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return what the module computes, with the addition."""
        output = self.compute(given, *args, **options)
        return output + self.gain.of(self.adapter(given, output))


def put_adapters(patches: Patches, unet: nn.Module, adapters: Mapping[str, Adapter], *, gain: Gain) -> None:
    """Put adapters on modules of a UNet; what that takes is added to ``patches``.

    Raises:
        EditError: If the UNet has no such module; nothing has been put then.
    """
    for name, module in adapted_modules(unet, adapters).items():
        patches.put(module, "forward", Added(adapters[name], gain, module.forward).forward)


def adapted_modules(unet: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return the modules of these names.

    Raises:
        EditError: If the UNet has no such module.
    """
    modules = dict(unet.named_modules())
    for name in names:
        if name not in modules:
            raise EditError(
                f"this pipeline has no module '{name}' to put an adapter on.{did_you_mean(name, list(modules))} "
                "Load the edit's base"
            )
    return {name: modules[name] for name in names}
