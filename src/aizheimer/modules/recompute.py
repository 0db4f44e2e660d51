"""Gradient checkpointing: keep a block's input instead of its activations, and run it again in the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from aizheimer.errors import ModelError


@contextmanager
def recomputed(denoiser: nn.Module) -> Iterator[None]:
    """Recompute every block of a denoiser in the backward pass for the length of a ``with`` block.

    Activations then take the memory of one block and of the inputs of all; a step costs one forward pass more. Losses
    and gradients are the same. A block runs again with the very attention processors it ran with first, so a probe may
    have gone by then: what it read the first time is what is differentiated, and nothing is read twice.

    On leaving, every module's settings are what they were.

    Args:
        denoiser: A network of diffusers.

    Raises:
        ModelError: If the network has no blocks that can be recomputed.
    """
    blocks: list[Any] = [module for module in denoiser.modules() if hasattr(module, "gradient_checkpointing")]
    if not blocks:
        raise ModelError(
            f"training.checkpointing: {type(denoiser).__name__} has no blocks that can be recomputed; leave it out"
        )
    settings = {"gradient_checkpointing": True, "_gradient_checkpointing_func": _run}
    before = [{name: vars(block)[name] for name in settings if name in vars(block)} for block in blocks]
    try:
        for block in blocks:
            vars(block).update(settings)
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            for name in settings:
                del vars(block)[name]
            vars(block).update(old)


def recomputes(denoiser: nn.Module) -> bool:
    """Whether a forward pass now would be recomputed in the backward pass."""
    return torch.is_grad_enabled() and any(
        getattr(block, "gradient_checkpointing", False) for block in denoiser.modules()
    )


def _run(module: nn.Module, *args: Any) -> Any:
    processors = {part: part.processor for part in module.modules() if hasattr(part, "processor")}
    # Nothing in a denoiser is random: dropout is off or has no rate.
    return checkpoint(
        module,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), _Processors(processors)),
    )


class _Processors:
    """Sets processors for the length of a ``with`` block.

    A graph that goes backward twice, as where gradients are measured apart, enters it twice, so no generator will do.
    """

    def __init__(self, processors: dict[Any, Any]) -> None:
        self._processors, self._before = processors, dict[Any, Any]()

    def __enter__(self) -> None:
        self._before = {part: part.processor for part in self._processors}
        for part, processor in self._processors.items():
            part.processor = processor

    def __exit__(self, *_: object) -> None:
        for part, processor in self._before.items():
            part.processor = processor
