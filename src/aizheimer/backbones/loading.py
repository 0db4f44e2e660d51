"""Load a Stable Diffusion pipeline, or say in one line why it cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aizheimer.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

BUNDLED = ("emoji",)
_BUNDLED_FOLDER = Path(__file__).resolve().parents[1] / "assets"
_INDEX = "model_index.json"
_PIPELINE_CLASS = "StableDiffusionPipeline"
_COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_pipeline(model: str | Path, *, local_files_only: bool = False) -> StableDiffusionPipeline:
    """Load a pipeline as float32 on the CPU, without safety checker and progress bars.

    Half-precision files are widened, so an edit made from them fits every copy of the same
    weights. Only safetensors are read, never pickles.

    Args:
        model: ``"emoji"`` (the bundled model), a pipeline's folder, or the id of a model on the hub.
        local_files_only: Take a hub model from the local cache only. ``HF_HUB_OFFLINE=1`` does the same.

    Raises:
        ModelError: The folder is missing, is not a Stable Diffusion pipeline, lacks a component or
            holds a damaged file; or the hub model cannot be had.

    Example:
        >>> load_pipeline("emoji").unet.config.in_channels
        4
    """
    folder = _locate(model, local_files_only=local_files_only)
    _check_index(folder)
    _check_files(folder)
    return _load(folder)


def _locate(model: str | Path, *, local_files_only: bool) -> Path:
    """Return the folder of a model: bundled, on disk, or fetched into the hub's cache."""
    if model in BUNDLED:
        folder = _BUNDLED_FOLDER / str(model) / "pipeline"
        if not folder.is_dir():
            raise ModelError(
                f"model {str(model)!r} is not part of this installation ({folder} is missing); "
                f"install aizheimer again, or build it with the scripts in models/{model}."
            )
        return folder
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"model {str(model)!r} is a file; wanted a diffusers pipeline folder, so convert it to one.")
    # "runs/pipeline" is a mistyped folder, not a model of the user "runs", if there is a folder "runs".
    if isinstance(model, str) and _HUB_ID.fullmatch(model) and not path.parent.exists():
        return _fetch(model, local_files_only=local_files_only)
    hint = did_you_mean(str(model), BUNDLED)
    raise ModelError(
        f"model {str(model)!r}: no such folder.{hint} Give a pipeline folder, a hub id (owner/name), "
        f"or the bundled {BUNDLED[0]!r}."
    )


def _fetch(hub_id: str, *, local_files_only: bool) -> Path:
    """Download a hub model, after a look at its index: the rest of another family's is many gigabytes."""
    from diffusers import DiffusionPipeline
    from transformers.utils.hub import cached_file

    try:
        index = cached_file(hub_id, _INDEX, local_files_only=local_files_only)
        if index is None:
            raise OSError(f"it has no {_INDEX}")
        _check_class(_read_index(Path(index)), where=hub_id)
        with quiet_loading():
            folder = DiffusionPipeline.download(
                hub_id, use_safetensors=True, safety_checker=None, local_files_only=local_files_only
            )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {hub_id!r} is neither a folder here nor could be had from the hub ({_first_line(error)}); "
            "check the name and the network, or give the folder of a download."
        ) from error
    return Path(folder)


def _check_index(folder: Path) -> None:
    if not (folder / _INDEX).is_file():
        nested = sorted(path.parent for path in folder.glob(f"*/{_INDEX}"))
        hint = f" Did you mean {str(nested[0])!r}?" if nested else ""
        raise ModelError(f"{folder}: no {_INDEX}; wanted a diffusers pipeline folder.{hint}")
    _check_class(_read_index(folder / _INDEX), where=str(folder))
    missing = [name for name in _COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise ModelError(f"{folder}: the pipeline lacks {', '.join(missing)}; copy or download it again.")


def _read_index(path: Path) -> dict[str, object]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({_first_line(error)}); copy or download it again.") from error
    return index if isinstance(index, dict) else {}


def _check_class(index: dict[str, object], *, where: str) -> None:
    name = index.get("_class_name", "pipeline without a class name")
    if name != _PIPELINE_CLASS:
        raise ModelError(f"{where}: got a {name}; wanted a {_PIPELINE_CLASS} (Stable Diffusion 1 or 2, or the like).")


def _check_files(folder: Path) -> None:
    """Open every safetensors file: its header and its length are checked, without reading the weights."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{path}: corrupt safetensors ({_first_line(error)}); copy or download it again."
            ) from error


def _load(folder: Path) -> StableDiffusionPipeline:
    import torch
    from diffusers import StableDiffusionPipeline

    try:
        with quiet_loading():
            pipe = StableDiffusionPipeline.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                safety_checker=None,
                requires_safety_checker=False,
                variant=_variant(folder),
            )
    except MemoryError:
        raise
    # A damaged folder fails in as many ways as there are lines in two libraries; all mean the same to the user.
    except Exception as error:
        raise ModelError(f"{folder}: cannot be loaded ({_first_line(error)}); copy or download it again.") from error
    pipe.set_progress_bar_config(disable=True)
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        # A diffusers from before the argument ``dtype`` leaves half-precision text encoders as they are.
        if network.dtype != torch.float32:
            network.float()
    return pipe


def _variant(folder: Path) -> str | None:
    """Return "fp16" for a folder that has the UNet in that variant only."""
    names = [path.name for path in (folder / "unet").glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Within the context diffusers and transformers show no progress bars for loading."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    active = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in active:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in active:
            log.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
