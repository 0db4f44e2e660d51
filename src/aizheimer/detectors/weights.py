"""Which network looked: a name can stand for any weights, a hash for one alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_hash(tensors: Mapping[str, Tensor], *settings: object) -> str:
    """Return 16 hexadecimal digits that name weights, running statistics included, and the settings beside them."""
    digest = hashlib.sha256(repr(settings).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()[:16]


def weights_of(looking: object) -> str:
    """Return the hash by which a judge or detector tells its weights; "" if it tells none."""
    return getattr(looking, "weights", "")
