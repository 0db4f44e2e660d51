"""The picture at the end of a run: the same prompts and seeds, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aizheimer._processes import is_main

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone
    from aizheimer.edits.edit import Edit
    from aizheimer.evaluation.plan import PlannedImage

FILE_NAME = "before-after.png"
EACH = 4


def draw_before_after(
    backbone: Backbone, edit: Edit, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Draw some of an evaluation's prompts with the edit and without, and save them as a grid.

    An evaluation that follows finds these pictures in the cache.

    Args:
        backbone: The edit's base.
        edit: What to show.
        folder: Where ``before-after.png`` goes.
        progress: Called with (pictures done, pictures in all).

    Returns:
        The picture's file.
    """
    from aizheimer.evaluation.evaluate import draw_pairs, planned
    from aizheimer.evaluation.settings import EvaluationSettings
    from aizheimer.reports.grid import GROUPS, GridColumn, save_grid

    concept, world, settings = edit.provenance.concept.to_concept(), backbone.world, EvaluationSettings()
    plan, _ = planned(backbone, concept, world=world, settings=settings)
    shown = [image for role in GROUPS for image in _first(plan, role, concept.kind)]
    guidance = world.guidance if settings.guidance is None else settings.guidance
    pairs = draw_pairs(backbone.pipe, edit, plan=shown, settings=settings, guidance=guidance, progress=progress)
    columns = [
        GridColumn(group=GROUPS[image.role], prompt=image.prompt, seed=image.seed, original=original, edited=edited)
        for image, original, edited in zip(shown, pairs.original, pairs.edited, strict=True)
    ]
    if is_main():
        save_grid(columns, folder / FILE_NAME)
    return folder / FILE_NAME


def _first(plan: Sequence[PlannedImage], role: str, kind: str) -> list[PlannedImage]:
    """Return the first picture of each prompt of the target, or of each other concept: never a chosen one."""
    found: dict[str | None, PlannedImage] = {}
    for image in plan:
        if image.role == role:
            found.setdefault(image.prompt if role == "target" else getattr(image, kind), image)
    return list(found.values())[:EACH]
