"""Draw before and after, let the judges look, and say what was forgotten and what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.detectors.base import find_class
from aizheimer.evaluation.calibration import calibrate_plan
from aizheimer.evaluation.flags import collapse_reasons, no_op_reasons, void_reasons, weak_target_reasons
from aizheimer.evaluation.functional.effective import ineffective_words
from aizheimer.evaluation.functional.images import ROUNDED_LEVELS, UNCHANGED_LEVELS, broken, unchanged
from aizheimer.evaluation.generate import Order, Progress, PromptJob, computed_in, generate
from aizheimer.evaluation.judges import Judges, load_judges
from aizheimer.evaluation.plan import PlannedImage, nearest_candidates, plan_images
from aizheimer.evaluation.results import Calibration, EvaluationResult, ImageRecord, Pair
from aizheimer.evaluation.scoring import Sight, accuracies, ineffective_prompts, look, neighbour_results
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.shares import Share

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


class AppliedEdit(Protocol):
    """What an evaluation needs of an edit: that it can be put on and taken off again."""

    @property
    def is_noop(self) -> bool:
        """True if it changes nothing."""
        ...

    def applied(self, pipe: Any) -> AbstractContextManager[Any]:
        """Put the edit on the pipeline for the length of a ``with`` block."""
        ...


@dataclass(frozen=True)
class ImagePairs:
    """The pictures of an evaluation: uint8 (n, height, width, 3) each, row i of both for ``result.images[i]``.

    Args:
        original: Those without the edit.
        edited: Those with it.
        levels: How far, of 255, a pixel of two drawings of one picture may be apart; more where they were rounded more.
    """

    original: np.ndarray
    edited: np.ndarray
    levels: int = UNCHANGED_LEVELS

    def unchanged(self) -> np.ndarray:
        """Return where a picture stayed as it was: (n,) bool."""
        return unchanged(self.original, self.edited, levels=self.levels)


def evaluate(
    pipe: StableDiffusionPipeline,
    edit: AppliedEdit | None,
    *,
    concept: Concept,
    world: World | None = None,
    judges: Judges | None = None,
    settings: EvaluationSettings | None = None,
    cache_dir: Path | str | Literal[False] | None = None,
    edit_key: str = "",
    progress: Progress | None = None,
) -> EvaluationResult:
    """Measure what an edit made the model forget and what it kept.

    Both models draw the same prompts from the same noise. The unedited model's pictures depend on no edit, so a
    second evaluation finds them in the cache.

    Args:
        pipe: The unedited pipeline; left as it was found.
        edit: What to evaluate; None measures the unedited model against itself.
        concept: The target.
        world: Prompts, neighbours and judges; None takes the pipeline's own.
        judges: Who looks; None loads the world's.
        settings: How much to draw; None is the default.
        cache_dir: As in :func:`~aizheimer.evaluation.generate.generate`.
        edit_key: Names an edit that is no `Edit` and changes no tensor; all others are told apart by themselves.
        progress: Called with (pictures done, pictures in all), both models together.

    Returns:
        The figures; what could not be measured is None, with the reason in ``warnings``.

    Raises:
        InputError: If the world has no prompts for the target.
        ModelError: If a judge cannot be loaded.
        JudgeError: If a judge fails on a picture.
    """
    backbone = backbone_for(pipe)
    world = world if world is not None else backbone.world
    judges = judges if judges is not None else load_judges(world, extra=(concept.target,))
    settings = settings if settings is not None else EvaluationSettings()
    plan, similarity = planned(backbone, concept, world=world, settings=settings)
    guidance = settings.guidance if settings.guidance is not None else world.guidance
    pairs = draw_pairs(
        pipe, edit, plan=plan, settings=settings, guidance=guidance, cache_dir=cache_dir, edit_key=edit_key,
        progress=progress,
    )  # fmt: skip
    sight = look(pairs.original, pairs.edited, plan=plan, judges=judges)
    return _conclude(
        concept, world.name, plan=plan, pairs=pairs, sight=sight, judges=judges, similarity=similarity,
        settings=settings, guidance=guidance, edit_is_noop=edit is None or edit.is_noop,
        edit_name=getattr(edit, "digest", edit_key),
    )  # fmt: skip


def planned(
    backbone: Backbone, concept: Concept, *, world: World, settings: EvaluationSettings
) -> tuple[list[PlannedImage], dict[str, float]]:
    """Return what an evaluation draws, and the neighbours' similarities to the target."""
    near = nearest_candidates(concept, world, embed=backbone.embed_concepts, count=settings.neighbours)
    return plan_images(concept, world, neighbours=[label for label, _ in near], settings=settings), dict(near)


def draw_share(
    pipe: StableDiffusionPipeline,
    edit: AppliedEdit | None,
    *,
    concept: Concept,
    world: World,
    settings: EvaluationSettings,
    share: Share,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> int:
    """Draw a share of an evaluation's pictures into the cache, where the evaluation then finds them.

    The shares of one evaluation may be drawn at the same time, by processes that know nothing of each other; what a
    killed one has not stored, at most a batch of it half done, the evaluation draws itself.

    Args:
        pipe: The unedited pipeline.
        edit: What is evaluated; None for the unedited model alone.
        concept: The target.
        world: Prompts and neighbours.
        settings: How much is drawn.
        share: Which of the batches.
        cache_dir: Folder of the shared cache.
        progress: Called with (pictures done, pictures in all) of this share.

    Returns:
        How many pictures were drawn; the others of the share were there.
    """
    plan, _ = planned(backbone_for(pipe), concept, world=world, settings=settings)
    jobs = list(dict.fromkeys(PromptJob(image.prompt, image.seed) for image in plan))
    size = settings.batch_size
    batches = share.of([jobs[start : start + size] for start in range(0, len(jobs), size)])
    total, done, drawn = sum(map(len, batches)) * (1 if edit is None else 2), 0, 0
    for on in [nullcontext()] if edit is None else [nullcontext(), edit.applied(pipe)]:
        with on:
            order = Order.of(
                pipe,
                jobs,
                steps=settings.steps,
                guidance=settings.guidance if settings.guidance is not None else world.guidance,
                precision=settings.precision,
                cache_dir=cache_dir,
                key="",
            )
            there = order.found(job for batch in batches for job in batch)
            missing = [[job for job in batch if job not in there] for batch in batches]
            done += len(there)
            for images in order.draw(pipe, [batch for batch in missing if batch]):
                done, drawn = done + len(images), drawn + len(images)
                if progress is not None:
                    progress(done, total)
    return drawn


def draw_pairs(
    pipe: StableDiffusionPipeline,
    edit: AppliedEdit | None,
    *,
    plan: Sequence[PlannedImage | ImageRecord],
    settings: EvaluationSettings,
    guidance: float,
    cache_dir: Path | str | Literal[False] | None = None,
    edit_key: str = "",
    progress: Progress | None = None,
) -> ImagePairs:
    """Draw every planned picture without and with the edit.

    To get the pictures of a finished evaluation back (from the cache, if it is still there), give ``result.images`` as
    the plan, ``result.settings`` and ``result.guidance``.
    """
    jobs = [PromptJob(image.prompt, image.seed) for image in plan]

    sampling = {"steps": settings.steps, "guidance": guidance, "batch_size": settings.batch_size}
    options: dict[str, Any] = {**sampling, "precision": settings.precision, "cache_dir": cache_dir}
    original = generate(pipe, jobs, progress=_part(progress, 0), **options)
    if edit is None:
        if progress is not None:
            progress(2 * len(jobs), 2 * len(jobs))
        return ImagePairs(original, original)
    with edit.applied(pipe):
        edited = generate(pipe, jobs, key=edit_key, progress=_part(progress, len(jobs)), **options)
    rounded = computed_in(pipe, settings.precision) == torch.bfloat16
    return ImagePairs(original, edited, ROUNDED_LEVELS if rounded else UNCHANGED_LEVELS)


def _part(progress: Progress | None, offset: int) -> Progress | None:
    """Count one model's pictures as half of the whole, ``offset`` of which are done."""
    return None if progress is None else lambda done, total: progress(offset + done, 2 * total)


def _conclude(
    concept: Concept,
    model_name: str,
    *,
    plan: Sequence[PlannedImage],
    pairs: ImagePairs,
    sight: Sight,
    judges: Judges,
    similarity: dict[str, float],
    settings: EvaluationSettings,
    guidance: float,
    edit_is_noop: bool,
    edit_name: str,
) -> EvaluationResult:
    """Turn labels and pixels into figures and flags."""
    metrics, missing = accuracies(concept, plan=plan, sight=sight, judges=judges, settings=settings)
    own = judges.style if concept.kind == "style" else judges.object
    same = pairs.unchanged()
    on_target = np.array([image.role == "target" for image in plan])
    spoiled = broken(pairs.original), broken(pairs.edited)
    everywhere = Pair(original=float(spoiled[0].mean()), edited=float(spoiled[1].mean()))
    unchanged_share = float(same[on_target].mean())
    no_op = no_op_reasons(unchanged_share=unchanged_share, edit_is_noop=edit_is_noop)
    seen = sight.labels(concept.kind)
    weak = [*void_reasons([] if seen is None else seen[1]), *weak_target_reasons(metrics.get("ua"))]
    target = None if own is None else find_class(own, concept.target)
    failing = {} if target is None else ineffective_prompts(target, concept.kind, plan=plan, sight=sight)
    asked = len({image.prompt for image in plan if image.role == "target"})
    weak += ineffective_words(len(failing), asked, left_out=settings.effective_only)
    collapse = collapse_reasons(ira=metrics.get("ira"), cra=metrics.get("cra"), broken=everywhere)
    return EvaluationResult(
        target=concept.target,
        kind=concept.kind,
        model_name=model_name,
        edit=edit_name,
        ua=metrics.get("ua"),
        ira=metrics.get("ira"),
        cra=metrics.get("cra"),
        near=metrics.get("near"),
        far=metrics.get("far"),
        ineffective=failing,
        calibration=_calibration(concept, plan=plan, sight=sight, judges=judges, level=settings.level),
        neighbours=neighbour_results(own, concept.kind, "neighbour", plan=plan, sight=sight, similarity=similarity),
        others=neighbour_results(own, concept.kind, "other", plan=plan, sight=sight, similarity={}),
        clip_target=sight.clip_mean(on_target),
        clip_retain=sight.clip_mean(~on_target),
        unchanged_share=unchanged_share,
        unchanged_retain_share=float(same[~on_target].mean()) if (~on_target).any() else 1.0,
        broken=everywhere,
        broken_retain=_share_of(spoiled, ~on_target),
        no_op=bool(no_op),
        collapse=bool(collapse),
        warnings=[*no_op, *collapse, *weak, *missing],
        settings=settings,
        guidance=guidance,
        made_from=judges.made_from(),
        images=[sight.record(i, image, unchanged=bool(same[i])) for i, image in enumerate(plan)],
    )


def _calibration(
    concept: Concept, *, plan: Sequence[PlannedImage], sight: Sight, judges: Judges, level: float
) -> Calibration | None:
    """Say how often the judge errs on the pictures of the unedited model that were drawn anyway."""
    judge, labels = getattr(judges, concept.kind), sight.labels(concept.kind)
    if judge is None or labels is None or find_class(judge, concept.target) is None:
        return None
    return calibrate_plan(concept.target, judge=judge.name, labels=labels[0], plan=plan, level=level)


def _share_of(pair: tuple[np.ndarray, np.ndarray], where: np.ndarray) -> Pair | None:
    """Average both (n,) over the marked pictures, None if there are none."""
    if not where.any():
        return None
    return Pair(original=float(pair[0][where].mean()), edited=float(pair[1][where].mean()))
