"""What the one-liners take: a model in any form, a concept as words, a run folder's own model; and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from aizheimer._processes import process_count, processes
from aizheimer._records import parse_json
from aizheimer.backbones.base import Backbone, backbone_for, load_pipeline
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.edits.provenance import current_versions
from aizheimer.errors import InputError, RunFolderError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Model: TypeAlias = "str | Path | DiffusionPipeline | Backbone"


def load_model(model: Model) -> Backbone:
    """Return the backbone of a model, loading it if it is a name or a folder.

    Args:
        model: ``"emoji"`` or ``"emoji-mmdit"``, a pipeline's folder, a hub id (``owner/name`` or
            ``owner/name@revision``), a single ``.safetensors`` checkpoint, a loaded pipeline, or a backbone, which is
            returned as it is.

    Returns:
        The backbone; its ``pipe`` is the pipeline.

    Raises:
        ModelError: The folder is missing, damaged, or holds no pipeline of a known family.

    Example:
        >>> load_model("emoji").world.name  # doctest: +SKIP
        'emoji'
    """
    if isinstance(model, str | Path):
        pipe: Any = load_pipeline(model)
        if process_count() > 1:
            pipe.to(processes().device)  # each process has a device of its own
        return backbone_for(pipe)
    # A pipeline is no backbone, though a backbone offers all that a pipeline is asked for here.
    return model if isinstance(model, Backbone) else backbone_for(model)


def as_concept(concept: str | Concept, *, world: World, keep: Sequence[str] = (), anchor: str = "") -> Concept:
    """Return words as a concept, a style if the world lists them among its styles.

    Raises:
        ConceptError: The words are empty, or also kept.
        InputError: A `Concept` came with ``keep`` or ``anchor`` beside it.
    """
    if not isinstance(concept, Concept):
        return Concept(concept, anchor=anchor, keep=tuple(keep), kind=world.kind_of(concept))
    if keep or anchor:
        raise InputError("Got a Concept and keep or anchor beside it; put them into the Concept.")
    return concept


def address_of(backbone: Backbone) -> str:
    """Return what loads the model again: the bundled model's name, an absolute folder, or a hub id."""
    name = str(backbone.pipe.name_or_path or "")
    folder = Path(name)
    if not name or not folder.is_dir():
        return name
    bundled = Path(__file__).parents[1] / "assets"
    inside = folder.resolve().parts[len(bundled.resolve().parts) :]
    return inside[0] if folder.resolve().is_relative_to(bundled.resolve()) else str(folder.resolve())


def environment() -> dict[str, Any]:
    """Return what this machine computes with: versions, threads and device, as JSON values."""
    import os
    import platform

    import torch

    cuda = torch.cuda.is_available()
    return {
        "versions": current_versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def model_of_run(run: str | Path) -> str:
    """Return the model that a run was made on, as it can be loaded again.

    Raises:
        RunFolderError: The folder does not say.
    """
    file = Path(run) / "env.json"
    try:
        model = parse_json(file.read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunFolderError(f"{file} does not say which model the run was made on; name it with --model.") from None
    return str(model)
