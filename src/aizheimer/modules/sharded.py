"""The weights that training leaves alone, dealt out to several processes, each of which holds its share (FSDP)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aizheimer._processes import company, processes
from aizheimer._row_shares import weights_shared
from aizheimer.errors import ModelError


@contextmanager
def sharded(denoiser: nn.Module, *, reshard: bool = True) -> Iterator[None]:
    """Hold a share of every block's frozen weights in each process for the length of a ``with`` block.

    torch's ``fully_shard`` brings a block's weights together when the block runs, and again in its backward pass. What
    learns stays whole in every process, and so does what belongs to no block: the embeddings, the first and the last
    layer. All processes must run the denoiser in the same order.

    On leaving, the very parameters are in their places again with their old bits. An error leaves the network without
    its weights, since the other processes may not be there to give theirs.

    Args:
        denoiser: A network of diffusers; what learns already asks for gradients.
        reshard: Whether a block's weights are given up after its forward pass; else after its backward pass.

    Raises:
        ModelError: If this torch cannot, or the network does not say what its blocks are.
    """
    if processes().count == 1:
        yield
        return
    shares = _Shares.of(denoiser, reshard=reshard)
    try:
        with company(), weights_shared():
            yield
            shares.gather()
    finally:
        shares.take_out()


@dataclass(frozen=True)
class _Place:
    """Where a frozen parameter belongs, and the block in which it is gathered."""

    owner: Any
    module: nn.Module
    name: str
    parameter: nn.Parameter


@dataclass(frozen=True)
class _Shares:
    """A network whose frozen weights are dealt out.

    What fully_shard does to a module it does to a copy, which runs in its place with the very same layers: so that it
    can be undone.
    """

    blocks: list[tuple[nn.Module, str, nn.Module]]
    stand_ins: list[Any]
    frozen: list[_Place]
    hooks: list[Any]

    @classmethod
    def of(cls, denoiser: nn.Module, *, reshard: bool) -> _Shares:
        """Deal them out."""
        from torch.distributed.device_mesh import init_device_mesh

        fully_shard, blocks = _fully_shard(), _blocks(denoiser)
        learning = {parameter for parameter in denoiser.parameters() if parameter.requires_grad}
        mesh = init_device_mesh(processes().device.type, (processes().count,))
        stand_ins = []
        for parent, name, block in blocks:
            stand_ins.append(_stand_in(block))
            setattr(parent, name, stand_ins[-1])
        frozen = _frozen(stand_ins, learning)
        for stand_in in stand_ins:
            fully_shard(stand_in, mesh=mesh, reshard_after_forward=reshard, ignored_params=learning)
        fully_shard(_Blocks(stand_ins), mesh=mesh, ignored_params=learning)()
        for place in frozen:
            place.parameter.data = place.parameter.data.new_empty(0)
        hooks = [module.register_forward_hook(partial(_gather_backward, owner)) for owner, module in _owners(frozen)]
        return cls(blocks, stand_ins, frozen, hooks)

    def gather(self) -> None:
        """Give every parameter its whole value again."""
        for stand_in in self.stand_ins:
            stand_in.reshard()  # if it was not after its last forward pass
        for place in self.frozen:
            share: Any = place.module._parameters[place.name]
            place.parameter.data = share.full_tensor().detach()

    def take_out(self) -> None:
        """Put the blocks and the parameters back, with whatever values they have."""
        for hook in self.hooks:
            hook.remove()
        for place in self.frozen:
            place.module._parameters[place.name] = place.parameter
        for parent, name, block in reversed(self.blocks):
            setattr(parent, name, block)


class _Blocks(nn.Module):
    """Over all blocks, so that they share buffers: alone, each would keep its whole weights until it runs again.

    Being called is what makes it their root.
    """

    def __init__(self, blocks: list[Any]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self) -> None:
        """Do nothing."""


def _fully_shard() -> Any:
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        fully_shard = None
    if fully_shard is None or "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise ModelError(
            f"FSDP: got torch {torch.__version__}; wanted one whose fully_shard can leave out what learns (2.8 or "
            "newer): install it, or start data-parallel processes with accelerate launch --multi_gpu"
        )
    return fully_shard


def _blocks(denoiser: Any) -> list[tuple[nn.Module, str, nn.Module]]:
    """Return every block as (parent, name in it, block), inner ones first."""
    kinds = set(getattr(denoiser, "_no_split_modules", None) or ())
    found = [
        (parent, name, child)
        for parent in denoiser.modules()
        for name, child in parent.named_children()
        if type(child).__name__ in kinds
    ]
    if not found:
        raise ModelError(
            f"FSDP: {type(denoiser).__name__} does not say what its blocks are (_no_split_modules); start "
            "data-parallel processes with accelerate launch --multi_gpu"
        )
    return found[::-1]


def _frozen(blocks: list[Any], learning: set[nn.Parameter]) -> list[_Place]:
    """Return the frozen parameters of blocks, inner blocks first, each once."""
    seen: dict[nn.Parameter, _Place] = {}
    for block in blocks:
        for module in block.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter not in learning:
                    seen.setdefault(parameter, _Place(block, module, name, parameter))
    return list(seen.values())


def _owners(frozen: list[_Place]) -> list[tuple[Any, nn.Module]]:
    """Return each layer with frozen weights beside its block, once."""
    return list({place.module: (place.owner, place.module) for place in frozen}.values())


def _gather_backward(owner: Any, _module: nn.Module, _inputs: Any, output: Any) -> None:
    """Bring a block's weights together before a gradient reaches the layer that read them.

    fully_shard does so where a gradient comes through the block's output. That of an attention map, or of whatever else
    is read within a block, does not.
    """
    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(lambda _gradient: owner.unshard())


def _stand_in(block: nn.Module) -> nn.Module:
    """Return a module of the block's own layers and settings, with hooks of its own."""
    stand_in = copy.copy(block)
    for name, value in vars(block).items():
        if isinstance(value, dict | set):
            vars(stand_in)[name] = copy.copy(value)
    return stand_in
