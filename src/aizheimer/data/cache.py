"""Tensors computed once and found again by what they were computed from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from aizheimer._files import write_tensors
from aizheimer.backbones.base import Backbone

CACHE_VARIABLE = "AIZHEIMER_CACHE"


def cache_folder(run_path: Path | None) -> Path | None:
    """Return where tensors are cached: ``$AIZHEIMER_CACHE``, else ``cache/`` in the run folder, else nowhere."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return None if run_path is None else run_path / "cache"


def content_key(**content: Any) -> str:
    """Return a hash of everything a result depends on.

    Args:
        **content: JSON values; dictionaries may come in any order.

    Example:
        >>> content_key(a=1, b=2) == content_key(b=2, a=1) != content_key(a=1, b=3)
        True
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def tensor_hash(tensor: Tensor) -> str:
    """Return a hash of a tensor's shape, type and exact bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(flat.numpy().data)
    return digest.hexdigest()


def tensor_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return `tensor_hash` of each, by name."""
    return {name: tensor_hash(tensor) for name, tensor in tensors.items()}


def module_hash(module: nn.Module) -> str:
    """Return a hash of a network's tensor names and exact bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor_hash(tensor).encode())
    return digest.hexdigest()


def backbone_key(backbone: Backbone, *, kind: str, content: Mapping[str, Any], components: Sequence[str] = ()) -> str:
    """Return the key of something that a model computes: what it is made of, and where it is computed.

    Args:
        backbone: The model; its device and number format are part of the key.
        kind: What is computed.
        content: JSON values that it depends on.
        components: Networks that it depends on, by their names in the pipeline.
    """
    named = {name: module_hash(backbone.components[name]) for name in components}
    place = f"{backbone.device.type} {backbone.dtype}"
    return content_key(kind=kind, torch=torch.__version__, place=place, content={**content, **named})


@dataclass(frozen=True)
class TensorCache:
    """A folder of safetensors files named by the hash of what made them.

    Args:
        folder: Where the files are; None computes everything every time.

    Example:
        >>> cache = TensorCache(None)
        >>> cache.get("key", lambda: {"x": torch.ones(1)})
        {'x': tensor([1.])}
    """

    folder: Path | None

    def get(self, key: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of ``key``, on the CPU, computing and storing them when they are not there.

        Computed or read, they are the same bits in the same memory layout, so that what is computed with them is too.
        With a folder they are views of the mapped file either way: pages that nobody reads take no memory.

        An entry that cannot be read (cut short, or not ours) is computed again and replaced.
        """
        if self.folder is None:
            return _plain(compute())
        path = self.folder / f"{key}.safetensors"
        found = _read(path, key)
        if found is None:
            found = _plain(compute())
            write_tensors(path, found, metadata={"key": key})
            found = _read(path, key) or found
        return found


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # A convolution may return channels last; what a file gives back is contiguous, and kernels round both differently.
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError):
        return None
