"""From a finished evaluation to everything its report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aizheimer.edits.parts import named, recorded_parts, told, words_of
from aizheimer.evaluation.evaluate import ImagePairs, draw_pairs
from aizheimer.evaluation.generate import StageProgress
from aizheimer.reports.grid import GROUPS, GridColumn, pick_columns
from aizheimer.reports.heatmaps import HeatmapPair, heatmap_pair
from aizheimer.reports.html import ReportContent
from aizheimer.reports.release import Release

if TYPE_CHECKING:
    from aizheimer.attacks.results import AttackResult
    from aizheimer.backbones.base import Backbone
    from aizheimer.edits.edit import Edit
    from aizheimer.evaluation.results import EvaluationResult
    from aizheimer.evaluation.suite import SuiteResult


def assemble(
    backbone: Backbone,
    edit: Edit,
    result: EvaluationResult,
    *,
    history: Sequence[Mapping[str, Any]] = (),
    recipe: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    suites: Mapping[str, SuiteResult] | None = None,
    attacks: Mapping[str, AttackResult] | None = None,
    release: Release | None = None,
    heatmaps: int = 2,
    columns: int = 4,
    cache_dir: Path | str | Literal[False] | None = None,
    progress: StageProgress | None = None,
) -> ReportContent:
    """Get the evaluation's pictures back, read the heat-maps, and put the report together.

    The pictures come from the cache; what is no longer there is drawn again.

    Args:
        backbone: The unedited model.
        edit: The edit that was evaluated.
        result: The evaluation.
        history: Rows of ``history.jsonl``.
        recipe: Hyper-parameters; None takes those in the edit's provenance.
        environment: Versions and machine; None takes the versions in the edit's provenance.
        suites: What further suites found, by name.
        attacks: What attacks brought back, by name.
        release: What a gate and a certificate say.
        heatmaps: Prompts to show attention for.
        columns: Grid columns in each group.
        cache_dir: As in :func:`~aizheimer.evaluation.generate.generate`.
        progress: Called with a stage's name, what is done and what there is in all.
    """
    provenance = edit.provenance.model_dump(mode="json")
    hook = {} if edit.hook is None else {"hook": {"name": edit.hook.name, "settings": dict(edit.hook.settings)}}
    pairs = pairs_of(backbone, edit, result, cache_dir=cache_dir, progress=progress)
    picked = pick_columns(result, pairs, each=columns)
    return ReportContent(
        result=result,
        columns=picked,
        heatmaps=_heatmaps(backbone, edit, result, picked, count=heatmaps, progress=progress),
        history=history,
        provenance={name: value for name, value in provenance.items() if name not in ("recipe", "versions")} | hook,
        recipe=recipe if recipe is not None else provenance["recipe"],
        environment=environment if environment is not None else {"versions": provenance["versions"]},
        suites=suites or {},
        attacks=attacks or {},
        release=release or Release(),
        parts=_parts(edit),
    )


def _parts(edit: Edit) -> list[str]:
    """Return what a sum is made of, in words; of an edit that is about its one concept, nothing."""
    parts = recorded_parts(edit.provenance)
    if len(parts) == 1 and words_of(parts[0]) == [edit.provenance.concept.target] and parts[0]["strength"] > 0:
        return []
    return [f"{told(part)} {named(part)}" for part in parts]


def pairs_of(
    backbone: Backbone,
    edit: Edit,
    result: EvaluationResult,
    *,
    cache_dir: Path | str | Literal[False] | None = None,
    progress: StageProgress | None = None,
) -> ImagePairs:
    """Return the pictures of an evaluation, from the cache where it still has them."""
    return draw_pairs(
        backbone.pipe,
        edit,
        plan=result.images,
        settings=result.settings,
        guidance=result.guidance,
        cache_dir=cache_dir,
        progress=None if progress is None else lambda done, total: progress("pictures", done, total),
    )


def _heatmaps(
    backbone: Backbone,
    edit: Edit,
    result: EvaluationResult,
    columns: Sequence[GridColumn],
    *,
    count: int,
    progress: StageProgress | None,
) -> list[HeatmapPair]:
    """Read the attention of the first target columns of the grid."""
    chosen = [column for column in columns if column.group == GROUPS["target"]][:count]
    pairs = []
    for done, column in enumerate(chosen, start=1):
        options: dict[str, Any] = {"steps": result.settings.steps, "guidance": result.guidance}
        pairs.append(
            heatmap_pair(backbone, edit, prompt=column.prompt, concept=result.target, seed=column.seed, **options)
        )
        if progress is not None:
            progress("attention", done, len(chosen))
    return pairs
