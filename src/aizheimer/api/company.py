"""Several edits of one base side by side: what they do to each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aizheimer.api.models import Model, load_base_of
from aizheimer.edits.compose import targets_of
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.interference import Interference, measure
from aizheimer.evaluation.judges import Judges, load_judges
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.reports.interference import save_interference_picture

MATRIX, MATRIX_PICTURE = "interference.json", "interference.png"


def interference(
    edits: Sequence[Edit | str | Path],
    *,
    model: Model | None = None,
    images: int = 5,
    retained: int = 60,
    steps: int = 20,
    seed: int = 0,
    judges: Judges | None = None,
    clip: str | Path | None = None,
    out: str | Path | None = None,
    progress: StageProgress | None = None,
) -> Interference:
    """Measure what several edits forget alone and together, and what each does to the others' targets.

    Args:
        edits: Edits or their run folders, two or more, of one base.
        model: The base; by default the one that the first run names.
        images: Pictures of each target.
        retained: Other objects, a picture of each.
        steps: Denoising steps.
        seed: Of the first pictures.
        judges: Who looks; by default the model's own.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        out: Folder for `MATRIX` and `MATRIX_PICTURE`; with None nothing is written.
        progress: Called with (stage, done, total).

    Returns:
        The shares of pictures, by edit and target.

    Raises:
        InputError: There are too few edits, two forget the same, or nobody can judge a target.
        EditError: An edit was made for another base.

    Example:
        >>> found = interference(["runs/cat", "runs/dog"], out="pets")  # doctest: +SKIP
        >>> found.together("cat") - found.alone("cat")  # doctest: +SKIP
        -0.2
    """
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"--out: '{out}' is a file; give a folder.")
    loaded = [edit if isinstance(edit, Edit) else load_edit(edit) for edit in edits]
    backbone = load_base_of(edits, model)
    targets = tuple(dict.fromkeys(word for edit in loaded for word in targets_of(edit)))
    found = measure(
        backbone,
        loaded,
        judges=judges or load_judges(backbone.world, clip_folder=clip, extra=targets),
        images=images,
        retained=retained,
        settings=EvaluationSettings(steps=steps, seed=seed),
        progress=progress,
    )
    if out is not None:
        found.save(Path(out) / MATRIX)
        save_interference_picture(found, Path(out) / MATRIX_PICTURE)
    return found
