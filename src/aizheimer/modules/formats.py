"""What a frozen network can be turned into while a part of it learns: half precision, another layout, compiled."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from aizheimer._files import write_tensors

_HEAVY = (nn.Linear, nn.Conv2d)
_COMPILED = ("ResnetBlock2D", "FeedForward")
"""Blocks without attention: a probe changes processors at every step, which would be compiled anew each time."""
_CALL = "_compiled_call_impl"
"""Where a module keeps its compiled self."""


@contextmanager
def frozen_in_bf16(network: nn.Module) -> Iterator[None]:
    """Hold the weights that do not learn in bfloat16 for the length of a ``with`` block.

    That is every linear layer and convolution without a parameter that asks for gradients, but for the first and the
    last: what goes into the network and comes out stays float32, and so do norms. Run it under autocast.

    On leaving, the weights are the old bits. Meanwhile those are in the memory of the CPU, or in a temporary file if
    the network is there already.

    Args:
        network: The network; what learns already asks for gradients.
    """
    chosen = halved_layers(network, [name for name, p in network.named_parameters() if p.requires_grad])
    with tempfile.TemporaryDirectory(prefix="aizheimer-") as folder:
        kept: list[tuple[nn.Module, dict[str, Tensor] | Path]] = []
        try:
            for number, layer in enumerate(chosen):
                kept.append((layer, _kept(layer, Path(folder) / f"{number}.safetensors")))
                for parameter in layer.parameters():
                    parameter.data = parameter.data.to(torch.bfloat16)
            yield
        finally:
            for layer, originals in kept:
                _put_back(layer, originals)


def halved_layers(network: nn.Module, trained: Collection[str]) -> list[nn.Module]:
    """Return the layers that `frozen_in_bf16` takes.

    Args:
        network: The network.
        trained: Names of the parameters that learn.
    """
    heavy = [(name, module) for name, module in network.named_modules() if isinstance(module, _HEAVY)][1:-1]
    learning = {name.rpartition(".")[0] for name in trained}
    return [module for name, module in heavy if name not in learning]


def _kept(layer: nn.Module, file: Path) -> dict[str, Tensor] | Path:
    tensors = {name: parameter.data for name, parameter in layer.named_parameters()}
    if any(tensor.device.type != "cpu" for tensor in tensors.values()):
        return {name: tensor.cpu() for name, tensor in tensors.items()}
    write_tensors(file, {name: tensor.contiguous() for name, tensor in tensors.items()})
    return file


def _put_back(layer: nn.Module, originals: dict[str, Tensor] | Path) -> None:
    # Cloned: what is read is a view of a file that is about to go.
    tensors = load_file(originals) if isinstance(originals, Path) else originals
    for name, parameter in layer.named_parameters():
        parameter.data = tensors[name].clone().to(parameter.device)


@contextmanager
def channels_last(network: nn.Module) -> Iterator[None]:
    """Lay the kernels of convolutions out with the channels last for the length of a ``with`` block; same values."""
    kernels = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    before = [(kernel, kernel.data.is_contiguous()) for kernel in kernels]
    try:
        for kernel in kernels:
            kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for kernel, plain in before:
            if plain:
                kernel.data = kernel.data.contiguous()


@contextmanager
def compiled(network: nn.Module) -> Iterator[None]:
    """Compile the blocks without attention, one graph for all of a kind, for the length of a ``with`` block."""
    blocks: list[Any] = [module for module in network.modules() if type(module).__name__ in _COMPILED]
    before = [vars(block).get(_CALL) for block in blocks]
    try:
        for block in blocks:
            block.compile()
        yield
    finally:
        for block, call in zip(blocks, before, strict=True):
            vars(block).pop(_CALL, None)  # it is not there where compiling has failed: that error is to be told
            if call is not None:
                vars(block)[_CALL] = call
