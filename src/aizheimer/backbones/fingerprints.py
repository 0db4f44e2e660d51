"""Name weights by a hash, so that an edit is only put on what it was made for."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn


def module_fingerprint(module: nn.Module) -> str:
    """Return 16 hexadecimal digits that name a network's weights, read as float32.

    SHA-256 over the names, shapes and bytes of all parameters in alphabetic order.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.named_parameters()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()[:16]


def kept_fingerprint(module: nn.Module, known: dict[str, Any]) -> str:
    """Return `module_fingerprint`, kept until a parameter is changed in place or exchanged.

    Writing through ``.data`` is not noticed.

    Args:
        module: The network.
        known: Where the last answer is kept.
    """
    state = tuple((id(value), value.data_ptr(), value._version) for _, value in sorted(module.named_parameters()))
    last = known.get("_fingerprint")
    if last is None or last[0] != state:
        known["_fingerprint"] = last = (state, module_fingerprint(module))
    return last[1]
