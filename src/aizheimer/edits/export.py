"""Write an edit as a file that other programs load: nothing of ours is needed to draw with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn

from aizheimer import _files
from aizheimer._version import __version__
from aizheimer.backbones.base import backbone_for
from aizheimer.backbones.loading import quiet_loading
from aizheimer.edits.hook import WeightHook
from aizheimer.edits.lora_names import kohya_name, peft_name
from aizheimer.edits.low_rank import ThinChange, ThinEdit, thin_edit
from aizheimer.edits.original_layout import original_state
from aizheimer.errors import EditError, did_you_mean

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from aizheimer.edits.edit import Edit

FormatName = Literal["delta", "lora-peft", "lora-kohya", "diffusers", "single-file", "text-encoder"]
"""What an edit can be written as."""
METADATA = "aizheimer"
"""Key of our record in a safetensors file's header."""
DEFAULT_RANK = 32


@dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of artifact.

    Args:
        summary: What it is, in one line.
        load: How to use it, in one line; FILE, FOLDER and BASE are the user's, NETWORK is what was edited.
        folder: Whether it is a folder rather than one safetensors file.
        exact: Whether it always holds the very weights of the edited model.
    """

    summary: str
    load: str
    folder: bool = False
    exact: bool = True


FORMATS: Mapping[FormatName, Format] = {
    "delta": Format(
        summary="the changed tensors alone, at their new values",
        load="for name, value in safetensors.torch.load_file(FILE).items(): "
        "NETWORK.get_parameter(name).data.copy_(value)",
    ),
    "lora-peft": Format(
        summary="a LoRA as diffusers and PEFT save it", load="pipe.load_lora_weights(FILE)", exact=False
    ),
    "lora-kohya": Format(
        summary="a LoRA for ComfyUI, AUTOMATIC1111 and diffusers",
        load="put it into models/loras (ComfyUI) or models/Lora (AUTOMATIC1111); or pipe.load_lora_weights(FILE)",
        exact=False,
    ),
    "diffusers": Format(
        summary="the whole edited pipeline", load="StableDiffusionPipeline.from_pretrained(FOLDER)", folder=True
    ),
    "single-file": Format(
        summary="the whole edited model as one checkpoint in the original layout",
        load="put it into models/checkpoints (ComfyUI) or models/Stable-diffusion (AUTOMATIC1111); "
        "or StableDiffusionPipeline.from_single_file(FILE, config=BASE)",
    ),
    "text-encoder": Format(
        summary="the edited text encoder, which any pipeline with that text encoder takes; of several, a folder each",
        load="StableDiffusionPipeline.from_pretrained(BASE, text_encoder=CLIPTextModel.from_pretrained(FOLDER))",
        folder=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        format: As what.
        path: Where.
        load: How to use it, in one line.
        error: Relative error of the change, 0 for the formats that hold the very weights.
        layers: Rank and relative error of each layer's product, by ``"<part>.<layer>"``; of LoRAs only.
        left_out: Changes that are not in it, because no LoRA can hold them.
    """

    format: FormatName
    path: Path
    load: str
    error: float = 0.0
    layers: Mapping[str, tuple[int, float]] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        files = [self.path] if self.path.is_file() else [file for file in self.path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files)


def format_named(name: str) -> FormatName:
    """Return a format's name as it is listed.

    Raises:
        EditError: If there is none of that name.
    """
    for known in get_args(FormatName):
        if known == name:
            return known
    hint = did_you_mean(name, FORMATS)
    raise EditError(f"unknown format {name!r}.{hint} There are: {', '.join(FORMATS)}")


def export_edit(
    edit: Edit,
    pipe: DiffusionPipeline,
    path: str | Path,
    *,
    format: str,
    rank: int = DEFAULT_RANK,
    partial: bool = False,
    ungated: bool = False,
    check_base: bool = True,
) -> Exported:
    """Write an edit, its strength included, as something that needs nothing of aizheimer.

    Args:
        edit: What to write.
        pipe: Its base, which is as it was afterwards.
        path: The file or folder to write; it must not be there yet.
        format: One of `FORMATS`.
        rank: Of a LoRA, at most. An edit of fewer dimensions is held exactly by fewer.
        partial: Leave out what a LoRA cannot hold (biases, norms), and count it in the error.
        ungated: Let an edit that each prompt gets as far as it is about the concept act on all prompts alike.
        check_base: Refuse a pipeline that the edit was not made for.

    Returns:
        What was written, with the error of every layer.

    Raises:
        EditError: If the format cannot hold the edit, the base is another one, or something is at ``path`` already.
    """
    name, path = format_named(format), Path(path)
    if path.exists() or path.is_symlink():
        raise EditError(f"{path} is there already; choose another --out, or delete it")
    weights = _as_weights(edit, pipe, ungated=ungated)
    _check_parts(weights, name)
    with weights.applied(pipe, check_base=check_base):
        if name in {"lora-peft", "lora-kohya"}:
            return _write_lora(weights, pipe, path, name=name, rank=rank, partial=partial)
        _WRITERS[name](weights, pipe, path)
    return Exported(format=name, path=path, load=_load_line(name, weights, pipe))


def _as_weights(edit: Edit, pipe: DiffusionPipeline, *, ungated: bool) -> Edit:
    if edit.is_noop:
        raise EditError("this edit changes nothing, so there is nothing to export; give it a strength other than 0")
    if isinstance(edit.hook, WeightHook) and edit.hook.gated and not ungated:
        raise EditError(
            f"each prompt gets this edit of the method {edit.provenance.method} as far as it is about the concept, "
            "which no file of weights can do; keep the edit, or write it with --ungated: all prompts get all of it then"
        )
    if edit.hook is not None and not isinstance(edit.hook, WeightHook):
        raise EditError(
            f"this edit of the method {edit.provenance.method} acts while pictures are drawn (hook "
            f"{edit.hook.name!r}), which no file of weights can do; use the run folder, or forget with another method"
        )
    return edit.as_weights(pipe)


def _check_parts(edit: Edit, name: FormatName) -> None:
    if name == "text-encoder" and "unet" in _parts(edit):
        raise EditError("this edit changes the denoiser, not the text encoder alone; export as delta or diffusers")


def _denoiser_name(pipe: DiffusionPipeline) -> str:
    """Return what the pipeline calls its denoiser: ``"unet"`` or ``"transformer"``."""
    denoiser = backbone_for(pipe).networks["unet"]
    return next((name for name, part in pipe.components.items() if part is denoiser), "unet")


def _load_line(name: FormatName, edit: Edit, pipe: DiffusionPipeline) -> str:
    """Return how this artifact is loaded: a delta, into the networks that were edited, as the pipeline calls them.

    A name or shape that does not fit must raise, which ``load_state_dict(..., strict=False)`` keeps to itself.
    """
    parts = _parts(edit)
    called = {part: f"pipe.{_denoiser_name(pipe) if part == 'unet' else part}" for part in parts}
    if name != "delta":
        given = ", ".join(_loaded_encoder(part, pipe, alone=len(parts) == 1) for part in parts if part != "unet")
        found = FORMATS[name].load.replace("text_encoder=CLIPTextModel.from_pretrained(FOLDER)", given)
        return found.replace("StableDiffusionPipeline", type(pipe).__name__)
    if len(parts) == 1:
        return FORMATS[name].load.replace("NETWORK", called[parts[0]])
    networks = ", ".join(f'"{part}": {called[part]}' for part in parts)
    by_part = f'{{{networks}}}[name.partition(".")[0]].get_parameter(name.partition(".")[2])'
    return FORMATS[name].load.replace("NETWORK.get_parameter(name)", by_part)


def _loaded_encoder(part: str, pipe: Any, *, alone: bool) -> str:
    """Return the argument that gives a pipeline a text encoder of its folder."""
    place = "FOLDER" if alone else f'FOLDER, subfolder="{part}"'
    return f"{part}={type(getattr(pipe, part)).__name__}.from_pretrained({place})"


def _parts(edit: Edit) -> list[str]:
    """Return which networks an edit changes."""
    return sorted({name.partition(".")[0] for name in edit.deltas})


def _write_delta(edit: Edit, pipe: DiffusionPipeline, path: Path) -> None:
    """Write the changed parameters by the names that their network has for them; by part too if there are several."""
    networks = backbone_for(pipe).networks
    values: dict[str, Tensor] = {}
    parts = _parts(edit)
    for name in edit.deltas:
        part, _, own = name.partition(".")
        values[own if len(parts) == 1 else name] = networks[part].get_parameter(own)
    _files.write_tensors(path, values, metadata=_header(edit, networks=",".join(parts)))


def _write_pipeline(edit: Edit, pipe: DiffusionPipeline, path: Path) -> None:
    _save_folder(path, lambda folder: pipe.save_pretrained(folder, safe_serialization=True))


def _write_text_encoder(edit: Edit, pipe: Any, path: Path) -> None:
    """Write the edited text encoder; of several, each into a folder of its network's name."""
    parts = _parts(edit)

    def save(folder: Path) -> None:
        for part in parts:
            getattr(pipe, part).save_pretrained(folder if len(parts) == 1 else folder / part)

    _save_folder(path, save)


def _save_folder(path: Path, save: Callable[[Path], Any]) -> None:
    with _files.atomic_folder(path) as folder, quiet_loading():
        save(folder)
        for file in folder.rglob("*.json"):
            _forget_home(file)


def _forget_home(file: Path) -> None:
    """Take out of a configuration where on this machine its model was: that is nobody else's business."""
    content = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(content, dict) and Path(str(content.get("_name_or_path") or "")).is_absolute():
        del content["_name_or_path"]
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_single_file(edit: Edit, pipe: Any, path: Path) -> None:
    _files.write_tensors(path, original_state(pipe), metadata=_header(edit))


def _write_lora(
    edit: Edit, pipe: DiffusionPipeline, path: Path, *, name: FormatName, rank: int, partial: bool
) -> Exported:
    networks = backbone_for(pipe).networks
    denoiser = _denoiser_name(pipe)
    if name == "lora-kohya" and denoiser != "unet":
        raise EditError(f"lora-kohya names the layers of a UNet, this model has a {denoiser}; export as lora-peft")
    thin = thin_edit(edit, networks, rank=rank, partial=partial)
    if name == "lora-kohya":
        tensors, more = _kohya_tensors(thin, networks), _kohya_header(thin)
    else:
        tensors, more = _peft_tensors(thin, denoiser), {}
    _files.write_tensors(path, tensors, metadata=_header(edit, error=f"{thin.error:.3g}", **more))
    layers = {change.module: (change.rank, change.error) for change in thin.changes}
    load = FORMATS[name].load
    return Exported(format=name, path=path, load=load, error=thin.error, layers=layers, left_out=tuple(thin.left_out))


def _kohya_tensors(thin: ThinEdit, networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the products by kohya's names. Alpha is the rank, so that U D is added as it is."""
    tensors: dict[str, Tensor] = {}
    for change in (*thin.changes, *_landmarks(thin, networks)):
        layer = kohya_name(change.module, parts=networks)
        tensors[f"{layer}.lora_down.weight"] = change.down
        tensors[f"{layer}.lora_up.weight"] = change.up
        tensors[f"{layer}.alpha"] = change.up.new_tensor(float(change.rank))
    return tensors


def _landmarks(thin: ThinEdit, networks: Mapping[str, nn.Module]) -> list[ThinChange]:
    """Return changes of nothing that make diffusers read the others.

    It takes a file's names of a text encoder's attention for those of kohya only if an ``out_proj`` is among them;
    kohya's trainers always write all four projections.
    """
    found = []
    for part, network in networks.items():
        attention = [c.module for c in thin.changes if c.module.startswith(f"{part}.") and ".self_attn." in c.module]
        if not attention or any(module.endswith(".out_proj") for module in attention):
            continue
        module = f"{attention[0].rpartition('.')[0]}.out_proj"
        weight = network.get_parameter(f"{module.partition('.')[2]}.weight")
        down, up = weight.new_zeros(thin.rank, weight.shape[1]), weight.new_zeros(len(weight), thin.rank)
        found.append(ThinChange(module, down.float(), up.float(), lost=0.0, size=0.0))
    return found


def _kohya_header(thin: ThinEdit) -> dict[str, str]:
    """Return what AUTOMATIC1111 shows of a LoRA."""
    return {"ss_network_module": "networks.lora", "ss_network_dim": str(thin.rank), "ss_network_alpha": str(thin.rank)}


def _peft_tensors(thin: ThinEdit, denoiser: str) -> dict[str, Tensor]:
    """Return the products by PEFT's names, without alphas: readers then add U D as it is."""
    tensors: dict[str, Tensor] = {}
    for change in thin.changes:
        layer = peft_name(change.module, denoiser=denoiser)
        tensors[f"{layer}.lora_A.weight"] = change.down
        tensors[f"{layer}.lora_B.weight"] = change.up
    return tensors


def _header(edit: Edit, **more: str) -> dict[str, str]:
    """Return what goes into the file's header: who made it, of what, for which base."""
    origin = edit.provenance
    record = {
        "method": origin.method,
        "concept": origin.concept.target,
        "base": origin.base_name,
        "base_fingerprint": origin.base_fingerprint,
        "strength": origin.strength,
        "version": __version__,
    }
    return {"format": "pt", METADATA: json.dumps(record, ensure_ascii=False), **more}


_WRITERS: Mapping[FormatName, Callable[[Edit, Any, Path], None]] = {
    "delta": _write_delta,
    "diffusers": _write_pipeline,
    "single-file": _write_single_file,
    "text-encoder": _write_text_encoder,
}
