"""Name weights by a hash, so that an edit is only put on what it was made for."""

from __future__ import annotations

import hashlib

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
