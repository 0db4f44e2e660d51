"""Pictures already drawn, found again by everything they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from aizheimer._files import atomic
from aizheimer.backbones.base import backbone_for
from aizheimer.concepts.world import DEFAULT_WORLD
from aizheimer.edits.apply import hooks_on
from aizheimer.errors import StorageError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

FORMAT = 1
"""Raise this when the same request may give other pixels, so that no old entry is found."""


def default_cache_dir() -> Path:
    """Return the shared cache: ``$AIZHEIMER_CACHE``, else ``~/.cache/aizheimer``."""
    return Path(os.environ.get("AIZHEIMER_CACHE") or Path.home() / ".cache" / "aizheimer")


def pipeline_digest(pipe: StableDiffusionPipeline) -> str:
    """Return sha256 over all that turns words into pixels, as it is now, edits included.

    That is every parameter and buffer of the denoiser, the text encoder and the decoder, the tokenizer's vocabulary,
    the scaling of latents, and the name, settings, tensors and strength of every hook that an `Edit` put there.
    Because an applied edit changes the digest, an edit made by any tool is told apart without its help; only a hook
    that another tool put on has to bring a ``key`` of its own.
    """
    digest = hashlib.sha256()
    backbone = backbone_for(pipe, world=DEFAULT_WORLD)
    for part, network in backbone.components.items():
        for name, tensor in network.state_dict().items():
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_raw_bytes(tensor))
    words = {"vocabulary": backbone.windows[0].tokenizer.get_vocab(), "vae": _numbers(pipe.vae.config)}
    digest.update(json.dumps(words, sort_keys=True).encode())
    if hooks := hooks_on(pipe):
        digest.update(json.dumps({"hooks": hooks}, sort_keys=True).encode())
    return digest.hexdigest()


def _raw_bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _numbers(config: Any) -> dict[str, Any]:
    """Keep what scales latents; paths and versions in a config change nothing in a picture."""
    return {name: config.get(name) for name in ("scaling_factor", "shift_factor", "latents_mean", "latents_std")}


@dataclass(frozen=True)
class ImageCache:
    """A folder of pictures, one safetensors file each, named by the hash of the request.

    Every entry carries a checksum of its pixels: a cut or altered file is a miss, and is drawn again and replaced.

    Attributes:
        folder: Where entries lie; None keeps nothing.

    Example:
        >>> ImageCache(None).read("00") is None
        True
    """

    folder: Path | None

    @classmethod
    def at(cls, cache_dir: Path | str | Literal[False] | None) -> ImageCache:
        """Open the cache in ``cache_dir``; None is the default folder, False keeps nothing."""
        if cache_dir is False:
            return cls(None)
        return cls((Path(cache_dir) if cache_dir is not None else default_cache_dir()) / "images")

    @staticmethod
    def key(**request: Any) -> str:
        """Return the name of the entry for a request of JSON values."""
        text = json.dumps({"format": FORMAT, **request}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, key: str) -> Path | None:
        """Return where the entry lies, or would lie."""
        return None if self.folder is None else self.folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> np.ndarray | None:
        """Return uint8 (height, width, 3), or None if there is no sound entry; a damaged one is warned of."""
        path = self.path(key)
        if path is None:
            return None
        try:
            entry = load(path.read_bytes())
            image, checksum = entry["image"], entry["sha256"]
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError):
            return _damaged(path)
        return image if np.array_equal(checksum, _checksum(image)) else _damaged(path)

    def write(self, key: str, image: np.ndarray) -> None:
        """Store one picture, all of it or nothing.

        Raises:
            StorageError: If the folder cannot be written.
        """
        path = self.path(key)
        if path is None:
            return
        image = np.ascontiguousarray(image)
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(save({"image": image, "sha256": _checksum(image)}))
        except OSError as error:
            raise StorageError(
                f"{self.folder}: cannot keep pictures there ({error.strerror}); set AIZHEIMER_CACHE to another folder"
            ) from error


def _damaged(path: Path) -> None:
    """Say that an entry is there and no use; the caller draws the picture again and replaces it."""
    warnings.warn(f"{path} is damaged: the picture is drawn again and the entry replaced", stacklevel=3)


def _checksum(image: np.ndarray) -> np.ndarray:
    digest = hashlib.sha256(f"{image.dtype} {image.shape}".encode() + image.tobytes()).digest()
    return np.frombuffer(digest, dtype=np.uint8)
