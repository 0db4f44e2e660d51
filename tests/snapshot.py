"""Everything an edit could leave behind on a pipeline."""

from __future__ import annotations

from typing import Any

import torch

from aizheimer.backbones.base import backbone_for

OWNERS = ("tokenizer", "tokenizer_2", "tokenizer_3", "scheduler", "image_processor")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_buffers")


def snapshot(pipe: Any) -> dict[str, Any]:
    """Return the bits of every tensor, as ``"unet.<name>"``, and every attribute, hook, flag and mode beside them.

    The denoiser is called unet, as in edits. Attributes are compared by identity: a processor or a method that was
    replaced by an equal one is noticed.
    """
    networks = {name.replace("transformer", "unet"): net for name, net in backbone_for(pipe).components.items()}
    owners = {"pipe": pipe, **{name: own for name in OWNERS if (own := getattr(pipe, name, None)) is not None}}
    found: dict[str, Any] = {"random": torch.get_rng_state()}
    for part, network in networks.items():
        owners |= {f"{part}.{name}" if name else part: module for name, module in network.named_modules()}
        found |= {f"{part}.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
        found |= {f"{part}.{name}:grad": (p.requires_grad, id(p.grad)) for name, p in network.named_parameters()}
    for name, owner in owners.items():
        found |= {f"{name}:{key}": id(value) for key, value in vars(owner).items() if key != "_progress_bar_config"}
        if isinstance(owner, torch.nn.Module):
            found |= {f"{name}:{kind}": list(getattr(owner, kind)) for kind in HOOKS}
    return found


def same_snapshot(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two snapshots are equal, tensors bit for bit."""
    return a.keys() == b.keys() and not changed(a, b)


def changed(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """Return the names of what two snapshots both have and that is not the same in them."""
    return {name for name in a.keys() & b.keys() if not _equal(a[name], b[name])}


def _equal(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor):
        return a == b
    return torch.equal(a.view(torch.uint8) if a.ndim else a, b.view(torch.uint8) if b.ndim else b)
