"""Load a pipeline of any known family, or say in one line why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aizheimer._records import parse_json
from aizheimer.backbones.families import FAMILIES, Family, family_of
from aizheimer.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

BUNDLED = ("emoji", "emoji-mmdit")
_HOW_TO_BUILD = "install aizheimer again, or build it with the scripts in models/emoji"
_BUNDLED_FOLDER = Path(__file__).resolve().parents[1] / "assets"
_SINGLE = ".safetensors"
_INDEX = "model_index.json"
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")
_GATED = ("401", "403", "gated", "restricted")
"""Words in what the hub answers when a model has to be asked for."""


def load_pipeline(
    model: str | Path, *, local_files_only: bool = False, revision: str | None = None, config: str | Path | None = None
) -> Any:
    """Load a pipeline as float32 on the CPU, without safety checker and progress bars.

    Half-precision files are widened, so an edit made from them fits every copy of the same
    weights. Only safetensors are read, never pickles.

    Args:
        model: ``"emoji"`` or ``"emoji-mmdit"`` (bundled models), a pipeline's folder, the id of a model on the hub,
            which may name a revision (``owner/name@revision``), or a single ``.safetensors`` checkpoint, which may name
            its ``config`` (``model.safetensors@folder``).
        local_files_only: Take a hub model from the local cache only. ``HF_HUB_OFFLINE=1`` does the same.
        revision: Branch, tag or commit of a hub model.
        config: For a single file: the folder or hub id of a pipeline of the same kind, which says how its networks are
            built; None lets diffusers find out from the file and look it up on the hub.

    Returns:
        The pipeline, of the diffusers class of its family.

    Raises:
        ModelError: The folder is missing, is no pipeline of a known family, lacks a component or
            holds a damaged file; or the hub model cannot be had.

    Example:
        >>> load_pipeline("emoji").unet.config.in_channels
        4
    """
    name, named, own = str(model).partition(f"{_SINGLE}@")
    if named and Path(name + _SINGLE).expanduser().is_file():
        if config is not None:
            raise ModelError(f"config: got {str(config)!r} beside {str(model)!r}, which names one; leave one out.")
        model, config = name + _SINGLE, own
    path = Path(model).expanduser()
    if model not in BUNDLED and path.is_file():
        _refuse_revision(revision, model)
        return _load_file(path, config=config, local_files_only=local_files_only)
    if config is not None:
        raise ModelError(f"config: got {str(config)!r} beside {str(model)!r}, which brings its own; leave config out.")
    folder = _locate(model, local_files_only=local_files_only, revision=revision)
    family = _check_index(folder)
    _check_files(folder)
    return _load(folder, family)


def _locate(model: str | Path, *, local_files_only: bool, revision: str | None) -> Path:
    """Return the folder of a model: bundled, on disk, or fetched into the hub's cache."""
    if model in BUNDLED:
        _refuse_revision(revision, model)
        folder = _BUNDLED_FOLDER / str(model) / "pipeline"
        if not folder.is_dir():
            raise ModelError(
                f"model {str(model)!r} is not part of this installation ({folder} is missing); {_HOW_TO_BUILD}."
            )
        return folder
    path = Path(model).expanduser()
    if path.is_dir():
        _refuse_revision(revision, model)
        return path
    # "runs/pipeline" is a mistyped folder, not a model of the user "runs", if there is a folder "runs".
    found = _HUB_ID.fullmatch(model) if isinstance(model, str) and not path.parent.exists() else None
    if found is not None:
        return _fetch(found[1], local_files_only=local_files_only, revision=revision or found[2])
    hint = did_you_mean(str(model), BUNDLED)
    raise ModelError(
        f"model {str(model)!r}: no such folder.{hint} Give a pipeline folder, a .safetensors checkpoint, a hub id "
        f"(owner/name), or the bundled {BUNDLED[0]!r}."
    )


def _refuse_revision(revision: str | None, model: str | Path) -> None:
    if revision is not None:
        raise ModelError(f"revision: got {revision!r} for {str(model)!r}, which is no hub model; leave revision out.")


def _fetch(hub_id: str, *, local_files_only: bool, revision: str | None) -> Path:
    """Download a hub model, after a look at its index: the rest of another family's is many gigabytes."""
    from diffusers import DiffusionPipeline
    from transformers.utils.hub import cached_file

    try:
        index = cached_file(hub_id, _INDEX, local_files_only=local_files_only, revision=revision)
        if index is None:
            raise OSError(f"it has no {_INDEX}")
        _check_class(_read_index(Path(index)), where=hub_id)
        with quiet_loading():
            folder = DiffusionPipeline.download(
                hub_id,
                use_safetensors=True,
                safety_checker=None,
                local_files_only=local_files_only,
                revision=revision,
            )
    except (OSError, ValueError) as error:
        raise ModelError(_unreachable(hub_id, revision, str(error))) from error
    return Path(folder)


def _unreachable(hub_id: str, revision: str | None, answer: str) -> str:
    """Return what to say of a hub model that cannot be had, by what the hub answered."""
    reason = (answer.strip().splitlines() or ["no answer"])[0]
    which = hub_id if revision is None else f"{hub_id} at {revision}"
    if any(word in answer.lower() for word in _GATED):
        return (
            f"model {which!r} is gated or private ({reason}); accept its licence on its page, log in with "
            "`hf auth login`, or give the folder of a download."
        )
    what = "the name and the network" if revision is None else "the name, the revision and the network"
    return (
        f"model {which!r} is neither a folder here nor could be had from the hub ({reason}); "
        f"check {what}, or give the folder of a download."
    )


def _check_index(folder: Path) -> Family:
    if not (folder / _INDEX).is_file():
        nested = sorted(path.parent for path in folder.glob(f"*/{_INDEX}"))
        hint = f" Did you mean {str(nested[0])!r}?" if nested else ""
        raise ModelError(f"{folder}: no {_INDEX}; wanted a diffusers pipeline folder.{hint}")
    family = _check_class(_read_index(folder / _INDEX), where=str(folder))
    missing = [name for name in FAMILIES[family].components if not (folder / name).is_dir()]
    if missing:
        raise ModelError(f"{folder}: the pipeline lacks {', '.join(missing)}; copy or download it again.")
    return family


def _read_index(path: Path) -> dict[str, object]:
    try:
        index = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({_first_line(error)}); copy or download it again.") from error
    return index if isinstance(index, dict) else {}


def _check_class(index: dict[str, object], *, where: str) -> Family:
    name = index.get("_class_name", "pipeline without a class name")
    family = family_of(str(name))
    if family is None:
        wanted = ", ".join(f"{info.pipeline} ({info.title})" for info in FAMILIES.values())
        raise ModelError(f"{where}: got a {name}; wanted one of {wanted}.")
    return family


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


def _load(folder: Path, family: Family) -> DiffusionPipeline:
    import diffusers
    import torch

    options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    if family == "sd":
        options |= {"safety_checker": None, "requires_safety_checker": False}
    # A folder that was saved without T5 says so, and diffusers asks for it all the same.
    saved = _read_index(folder / _INDEX)
    options |= {part: None for part in ("text_encoder_3", "tokenizer_3") if saved.get(part) == [None, None]}
    try:
        with quiet_loading():
            kind = getattr(diffusers, FAMILIES[family].pipeline)
            pipe = kind.from_pretrained(folder, variant=_variant(folder), **options)
    except MemoryError:
        raise
    # A damaged folder fails in as many ways as there are lines in two libraries; all mean the same to the user.
    except Exception as error:
        raise ModelError(f"{folder}: cannot be loaded ({_first_line(error)}); copy or download it again.") from error
    return _widened(pipe)


def _load_file(path: Path, *, config: str | Path | None, local_files_only: bool) -> DiffusionPipeline:
    """Load a single checkpoint, as model sites offer them; diffusers knows its kind by its tensors' names."""
    import diffusers
    import torch

    if path.suffix != _SINGLE:
        raise ModelError(f"{path}: got a file; wanted a .safetensors checkpoint or a pipeline folder, so convert it.")
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": local_files_only}
    if config is not None:
        options["config"] = str(Path(config).expanduser())
    family = _family_of_file(path)
    if family == "sd":
        options["safety_checker"] = None
    kind = getattr(diffusers, FAMILIES[family].pipeline)
    try:
        with quiet_loading():
            pipe = kind.from_single_file(str(path), **options)
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path}: cannot be loaded as a checkpoint of {FAMILIES[family].title} ({_first_line(error)}); give the "
            f"folder or hub id of such a pipeline as config ({path.name}@FOLDER), or convert the file to a folder."
        ) from error
    # What loads it again: a run folder says it.
    pipe.register_to_config(_name_or_path=str(path) if config is None else f"{path}@{config}")
    return _widened(pipe)


# A tensor that only checkpoints of one family have, by its name in the original code or in files of the network alone.
_MARKS: dict[Family, tuple[str, ...]] = {
    "flux": ("double_blocks.0.img_attn.qkv.weight",),
    "sd3": ("joint_blocks.0.context_block.attn.qkv.weight",),
    "sdxl": ("conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",),
    # The first of them is missing where the first block has no attention.
    "sd": (
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    ),
}


def _family_of_file(path: Path) -> Family:
    """Return the family of a checkpoint by the names of its tensors.

    Raises:
        ModelError: It is damaged, or of no known family.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: corrupt safetensors ({_first_line(error)}); copy or download it again.") from error
    for family, marks in _MARKS.items():
        if any(name.endswith(mark) for mark in marks for name in names):
            return family
    wanted = ", ".join(info.title for info in FAMILIES.values())
    raise ModelError(
        f"{path}: got {len(names)} tensors of no known kind of checkpoint; wanted one of {wanted}, with its denoiser."
    )


def _widened(pipe: Any) -> Any:
    """Return a pipeline with everything in float32, silent."""
    import torch

    pipe.set_progress_bar_config(disable=True)
    for network in pipe.components.values():
        # A diffusers from before the argument ``dtype`` leaves half-precision text encoders as they are.
        if isinstance(network, torch.nn.Module) and getattr(network, "dtype", torch.float32) != torch.float32:
            network.float()
    return pipe


def _variant(folder: Path) -> str | None:
    """Return "fp16" for a folder that has the denoiser in that variant only."""
    names = [path.name for part in ("unet", "transformer") for path in (folder / part).glob("*.safetensors")]
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
