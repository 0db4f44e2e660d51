"""Read what other programs saved: tensors by name, whatever the container, and nothing but tensors.

A ``.pt``, ``.bin`` or ``.ckpt`` file is a pickle, which can run any code when it is opened. It is read by torch's
restricted reader, which builds tensors and plain containers and refuses all else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aizheimer._records import parse_json
from aizheimer.errors import EditError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Names of files that can be read."""
_NETWORKS = {
    "UNet2DConditionModel": "unet",
    "CLIPTextModel": "text_encoder",
    "CLIPTextModelWithProjection": "text_encoder_2",
    "clip_text_model": "text_encoder",
}
"""What a folder's ``config.json`` calls the networks that an edit may change."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreign:
    """Tensors that somebody else saved.

    Args:
        path: The file or folder.
        tensors: By name; of nested containers the names are joined by dots.
        metadata: A safetensors file's header.
        sha256: Of all bytes that were read.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sha256: str


def read_foreign(path: str | Path, *, parts: Sequence[str] = ("unet", "text_encoder")) -> Foreign:
    """Read a file of tensors, or a folder of a pipeline, a UNet or a text encoder as diffusers saves them.

    A file of ours that says which one network it is of has that before its names.

    Args:
        path: ``.safetensors``, ``.pt``, ``.pth``, ``.bin``, ``.ckpt``, or a folder.
        parts: Networks of a pipeline's folder, or of one with text encoders alone, that are read.

    Raises:
        EditError: It is not there, is not of such a kind, is damaged, holds more than tensors, or holds none.
    """
    path = Path(path)
    files = _files_of(path, parts)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    digest = hashlib.sha256()
    for prefix, file in files:
        found, header = _read(file)
        if not prefix and header.get("networks") in parts:
            prefix = f"{header['networks']}."
        tensors |= {prefix + name: tensor for name, tensor in found.items()}
        metadata |= header
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    if not tensors:
        raise EditError(f"{path} holds no tensors; give the file that the method's program saved")
    return Foreign(path=path, tensors=tensors, metadata=metadata, sha256=digest.hexdigest())


def _files_of(path: Path, parts: Sequence[str]) -> list[tuple[str, Path]]:
    """Return the files to read, each with what to put before its names."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise EditError(f"{path} is no file of tensors; wanted one of {', '.join(SUFFIXES)}, or a folder")
        return [("", path)]
    if not path.is_dir():
        raise EditError(f"{path} is not there; give a file of tensors, or a pipeline's folder")
    if (path / "edit.json").is_file():
        raise EditError(f"{path} holds an edit already; use it as it is")
    encoders = [part for part in parts if part.startswith("text_encoder") and (path / part / "config.json").is_file()]
    if (path / "model_index.json").is_file() or (encoders and not (path / "config.json").is_file()):
        there = [part for part in parts if (path / part).is_dir()]
        return [(f"{part}.", file) for part in there for file in _weights(path / part)]
    part = _network_of(path)
    if part is None:
        raise EditError(
            f"{path} is neither a pipeline's folder (model_index.json) nor a UNet's or a text encoder's (config.json); "
            "give one of these, or a file of tensors"
        )
    return [(f"{part}.", file) for file in _weights(path)]


def _network_of(folder: Path) -> str | None:
    try:
        config = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    several = config.get("architectures")
    names = [config.get("_class_name"), *(several if isinstance(several, list) else ()), config.get("model_type")]
    return next((_NETWORKS[name] for name in names if isinstance(name, str) and name in _NETWORKS), None)


def _weights(folder: Path) -> list[Path]:
    """Return a network's files: safetensors before pickles, full precision before half, shards all."""
    for suffix in (".safetensors", ".bin"):
        files = sorted(folder.glob(f"*{suffix}"))
        files = [file for file in files if "non_ema" not in file.name and not file.name.startswith("training")]
        full = [file for file in files if ".fp16" not in file.name]
        if files:
            return full or files
    raise EditError(f"{folder} holds no weights (*.safetensors or *.bin); copy or download it again")


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if file.suffix.lower() == ".safetensors":
        try:
            with safe_open(str(file), framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
                return tensors, dict(opened.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise EditError(f"{file} is not a safetensors file ({_first_line(error)}); download it again") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # The reader fails in many ways, on files that are damaged and on files that want to run code.
    except Exception as error:
        raise EditError(_why_not(file, error)) from error
    tensors = dict(_flat(content))
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise EditError(f"{file}: '{name}' is no plain tensor of numbers; save it as one, in float32")
    return tensors, {}


def _why_not(file: Path, error: Exception) -> str:
    if "Weights only load failed" in str(error) or "Unsupported" in str(error):
        return (
            f"{file} holds more than tensors, and reading that would run code of its author's; get it as .safetensors, "
            "or save its tensors alone with a program you trust"
        )
    return f"{file} cannot be read ({_first_line(error)}); download it again"


def _flat(content: Any, prefix: str = "", *, deeper: int = 8) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dictionaries: ``{"unet": {"a": t}}`` is ``"unet.a"``; all else is left.

    What lies more than a few levels down is left too: a pickled dictionary may hold itself.
    """
    if isinstance(content, Mapping) and deeper:
        for name, value in content.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name), deeper=deeper - 1)
    elif isinstance(content, Tensor):
        yield prefix, content.detach()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
