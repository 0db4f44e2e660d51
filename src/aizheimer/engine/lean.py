"""The options that make training leaner, put into force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from aizheimer._launcher import asked_sharding
from aizheimer.backbones.base import Backbone
from aizheimer.engine.settings import TrainSettings
from aizheimer.modules.formats import channels_last, compiled, frozen_in_bf16
from aizheimer.modules.recompute import recomputed
from aizheimer.modules.sharded import sharded


@contextmanager
def lean(denoiser: nn.Module, settings: TrainSettings) -> Iterator[None]:
    """Run a denoiser as the settings say for the length of a ``with`` block; it is bit-identical afterwards.

    Args:
        denoiser: The network; what learns already asks for gradients.
        settings: ``checkpointing``, ``weights``, ``channels_last`` and ``compile`` are read. Whether several processes
            share the weights is said by their launcher.

    Raises:
        InputError: If the launcher wants them shared as no run does.
        ModelError: If the network cannot be recomputed, or its weights not be shared.
    """
    sharing = asked_sharding()
    with ExitStack() as stack:
        if settings.weights == "bf16":
            stack.enter_context(frozen_in_bf16(denoiser))
        if settings.channels_last:
            stack.enter_context(channels_last(denoiser))
        if sharing is not None:
            stack.enter_context(sharded(denoiser, reshard=sharing.reshard))
        if settings.checkpointing:
            stack.enter_context(recomputed(denoiser))
        if settings.compile:
            stack.enter_context(compiled(denoiser))
        yield


@contextmanager
def tiled(backbone: Backbone, settings: TrainSettings) -> Iterator[None]:
    """Have the autoencoder work tile by tile for the length of a ``with`` block, if the settings say so."""
    autoencoder: Any = backbone.components.get("vae")
    if not settings.vae_tiling or autoencoder is None or autoencoder.use_tiling:
        yield
        return
    autoencoder.enable_tiling()
    try:
        yield
    finally:
        autoencoder.disable_tiling()
