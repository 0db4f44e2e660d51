"""Edits in and out: as files of other programs, and as sums of one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aizheimer._names import dashed
from aizheimer.api.models import Model, address_of, as_concept, environment, load_base_of, load_model
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits import compose
from aizheimer.edits.edit import Edit
from aizheimer.edits.export import DEFAULT_RANK, FORMATS, Exported, export_edit, format_named
from aizheimer.edits.imports import METHOD, Gate, ImportReport
from aizheimer.edits.imports import import_edit as read_edit_of
from aizheimer.edits.io import load_edit
from aizheimer.engine.run_folder import RunFolder

EXPORTS = Path("exports")
"""Where exports go by default."""


def export(
    edit: Edit | str | Path,
    *,
    format: str,
    model: Model | None = None,
    out: str | Path | None = None,
    rank: int = DEFAULT_RANK,
    partial: bool = False,
    ungated: bool = False,
) -> Exported:
    """Write an edit as something that other programs load.

    Args:
        edit: The edit, or its run folder.
        format: delta, lora-peft, lora-kohya, diffusers, single-file or text-encoder.
        model: The edit's base; by default the one that the run names.
        out: The file or folder to write; by default one in ``exports/`` that is named after run and format.
        rank: Of a LoRA, at most.
        partial: Leave out what a LoRA cannot hold, and count it in the error.
        ungated: Let an edit that each prompt gets as far as it is about the concept act on all prompts alike.

    Returns:
        What was written, with the error of every layer.

    Raises:
        EditError: The format cannot hold the edit, the base is another one, or something is in the way.
        InputError: An edit came without a model.

    Example:
        >>> export("runs/santa-claus", format="lora-kohya").path  # doctest: +SKIP
        PosixPath('exports/santa-claus-lora-kohya.safetensors')
    """
    name = format_named(format)
    called = edit.provenance.concept.target if isinstance(edit, Edit) else Path(edit).resolve().name
    found = edit if isinstance(edit, Edit) else load_edit(edit)
    path = Path(out) if out is not None else EXPORTS / _file_name(f"{called} {name}", folder=FORMATS[name].folder)
    pipe = load_base_of([edit], model).pipe
    return export_edit(found, pipe, path, format=name, rank=rank, partial=partial, ungated=ungated)


def import_edit(
    path: str | Path,
    model: Model,
    concept: str | Concept,
    *,
    method: str = METHOD,
    gate: Gate = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[Edit, ImportReport]:
    """Read what another program saved as an edit of its base.

    Args:
        path: ESD's, UCE's, Concept Ablation's or DoCo's weights, an SPM, LECO or other LoRA, a pipeline's folder, a
            text encoder, or a checkpoint in the original layout. Pickles are read without running them.
        model: The base it was made from.
        concept: What it forgets.
        method: What made it, for the record.
        gate: How a LoRA acts: ``"auto"`` gates an SPM by the prompt and nothing else; ``"none"``, ``"both"``,
            ``"embedding"`` and ``"tokens"`` decide.
        out: The run folder to write; with None nothing is written.
        overwrite: Replace the run in ``out``.

    Returns:
        The edit, and which tensors matched, which did not, and what really changed.

    Raises:
        EditError: The file cannot be read, nothing in it fits the base, or nothing is changed by it.
    """
    backbone = load_model(model)
    target = as_concept(concept, world=backbone.world)
    edit, report = read_edit_of(path, backbone, target, method=method, gate=gate)
    if out is not None:
        save_run(edit, backbone, out, overwrite=overwrite)
    return edit, report


def stack(
    edits: Sequence[Edit | str | Path],
    *,
    without: Sequence[Edit | str | Path] = (),
    out: str | Path | None = None,
    model: Model | None = None,
    overwrite: bool = False,
) -> Edit:
    """Add edits of one base, or take some away again.

    Args:
        edits: Edits or run folders.
        without: What to take away from their sum: the concepts of these are drawn again.
        out: The run folder to write; with None nothing is written.
        model: Their base, for the run folder; by default the one that the first run names.
        overwrite: Replace the run in ``out``.

    Raises:
        EditError: They are of several bases, or a behaviour that is to be taken away is not in the sum.

    Example:
        >>> edit = stack(["runs/cat", "runs/dog"])  # doctest: +SKIP
    """
    found = [edit if isinstance(edit, Edit) else load_edit(edit) for edit in edits]
    total = compose.stack(*found) if len(found) != 1 else found[0]
    for one in without:
        total = compose.subtract(total, one if isinstance(one, Edit) else load_edit(one))
    if out is not None:
        save_run(total, load_base_of(edits, model), out, overwrite=overwrite)
    return total


def save_run(edit: Edit, backbone: Backbone, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write an edit that was not trained here as a run folder, which says what model it is for.

    Raises:
        RunFolderError: The folder holds a run or other files, or cannot be written.
    """
    run = RunFolder(Path(folder)).create(overwrite=overwrite)
    try:
        run.write_json("env.json", {"model": address_of(backbone), **environment(backbone.device)})
        edit.save(run.path)
    except BaseException:
        run.undo()
        raise
    run.keep()
    return run.path


def _file_name(words: str, *, folder: bool) -> str:
    """Return words as a file's name: lower-case, joined by dashes.

    Example:
        >>> _file_name("Mrs. Claus lora-peft", folder=False)
        'mrs-claus-lora-peft.safetensors'
    """
    return dashed(words) + ("" if folder else ".safetensors")
