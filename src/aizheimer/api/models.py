"""What the one-liners take: a model in any form, a concept as words, a run folder's own model; and the machine."""

from __future__ import annotations

import os
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
    import torch
    from diffusers import DiffusionPipeline

    from aizheimer.edits.edit import Edit

Model: TypeAlias = "str | Path | DiffusionPipeline | Backbone"


DEVICE_VARIABLE = "AIZHEIMER_DEVICE"
"""Where models that are loaded go, unless the call itself says it."""


def load_model(model: Model, *, device: str | None = None) -> Backbone:
    """Return the backbone of a model, loading it if it is a name or a folder.

    Args:
        model: ``"emoji"`` or ``"emoji-mmdit"``, a pipeline's folder, a hub id (``owner/name`` or
            ``owner/name@revision``), a single ``.safetensors`` checkpoint, a loaded pipeline, or a backbone, which is
            returned as it is.
        device: Where a model that is loaded goes, see `chosen_device`. A pipeline or a backbone stays where it is.

    Returns:
        The backbone; its ``pipe`` is the pipeline.

    Raises:
        ModelError: The folder is missing, damaged, or holds no pipeline of a known family.
        InputError: There is no such device here.

    Example:
        >>> load_model("emoji").world.name  # doctest: +SKIP
        'emoji'
    """
    if isinstance(model, str | Path):
        place = chosen_device(device)  # first: a wrong name must not cost a load
        pipe: Any = load_pipeline(model)
        return backbone_for(pipe.to(place))
    # A pipeline is no backbone, though a backbone offers all that a pipeline is asked for here.
    return model if isinstance(model, Backbone) else backbone_for(model)


def chosen_device(name: str | None = None) -> torch.device:
    """Return where a model goes: where ``name`` says, else ``AIZHEIMER_DEVICE``, else a GPU if there is one.

    Of several processes each has a device of its own, and a name can only agree with it.

    Raises:
        InputError: There is no such device here.

    Example:
        >>> chosen_device("cpu")
        device(type='cpu')
    """
    import torch

    wanted = name or os.environ.get(DEVICE_VARIABLE)
    try:
        named = None if wanted is None else torch.device(wanted)
    except RuntimeError:
        named = torch.device("meta")
    if process_count() > 1:
        own = processes().device
        if named is not None and named.type != own.type:
            raise InputError(
                f"device: got {wanted!r} for {process_count()} processes, of which each has its own {own.type}; leave "
                "it out (accelerate launch says what they compute on)."
            )
        return own
    there = {"cpu": 1, "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0}
    there["mps"] = int(torch.backends.mps.is_available())
    if named is not None and (named.index or 0) >= there.get(named.type, 0):
        have = ", ".join(f"{kind}:0 to {kind}:{n - 1}" if n > 1 else kind for kind, n in there.items() if n)
        raise InputError(f"device: got {wanted!r}; this machine has {have}, so name one of these or leave it out.")
    return named or torch.device("cuda" if there["cuda"] else "cpu")


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


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Return what this machine computes with: versions, threads and device, as JSON values.

    Args:
        device: Where a run's model is; by default where one that is loaded goes.
    """
    import platform

    import torch

    place = device or chosen_device()
    card = f" ({torch.cuda.get_device_name(place)})" if place.type == "cuda" else ""
    return {
        "versions": current_versions(),
        "platform": platform.platform(),
        "device": f"{place}{card}",
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


def load_base(run: str | Path, model: Model | None = None, *, device: str | None = None) -> Backbone:
    """Return the backbone that a run's edit belongs to.

    Args:
        run: The run's folder.
        model: The model to use instead of the one that the run says it was made on, as `load_model` takes it.
        device: As of `load_model`.

    Raises:
        RunFolderError: The folder does not say on which model it was made, and none is given.
        ModelError: As of `load_model`.
        InputError: As of `load_model`.
    """
    return load_model(model if model is not None else model_of_run(run), device=device)


def load_base_of(edits: Sequence[Edit | str | Path], model: Model | None = None) -> Backbone:
    """Return the backbone that several edits belong to: by default the one that the first run folder among them names.

    Args:
        edits: Edits or run folders.
        model: Their base, as `load_model` takes it.

    Raises:
        InputError: There is no run folder among them, and no model is given.
        RunFolderError: As of `load_base`.
        ModelError: As of `load_model`.
    """
    if model is not None:
        return load_model(model)
    run = next((edit for edit in edits if isinstance(edit, str | Path)), None)
    if run is None:
        what = "an edit without a model; name its" if len(edits) == 1 else "edits without a model; name their"
        raise InputError(f"Got {what} base with model.")
    return load_base(run)
