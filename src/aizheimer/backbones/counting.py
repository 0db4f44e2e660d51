"""Count what goes through a denoiser: the cost of anything, in a unit that no machine changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aizheimer.backbones.base import Backbone


@dataclass
class Count:
    """Latents that went through so far; under guidance a picture's step is two."""

    latents: int = 0


@contextlib.contextmanager
def counted(backbone: Backbone) -> Iterator[Count]:
    """Count the latents through the denoiser for the length of a ``with`` block."""
    count = Count()

    def listen(module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        del module, output
        count.latents += len(inputs[0] if inputs else keywords["sample" if "sample" in keywords else "hidden_states"])

    # Also of passes that end at the last module that is read.
    handle = backbone.denoiser.register_forward_hook(listen, with_kwargs=True, always_call=True)
    try:
        yield count
    finally:
        handle.remove()
