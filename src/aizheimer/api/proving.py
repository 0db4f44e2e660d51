"""Measure and attack an edit, in one call each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aizheimer._launcher import refuse_sharding
from aizheimer.api._overrides import dotted
from aizheimer.api.models import Model, as_concept, load_model
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.errors import InputError

if TYPE_CHECKING:
    from aizheimer.attacks.base import Attack, AttackSettings, Controls
    from aizheimer.attacks.run import AttackRun
    from aizheimer.detectors.base import Judge
    from aizheimer.evaluation.generate import Progress, StageProgress
    from aizheimer.evaluation.judges import Judges
    from aizheimer.evaluation.results import EvaluationResult
    from aizheimer.evaluation.settings import EvaluationSettings
    from aizheimer.evaluation.suite import SuiteResult
    from aizheimer.evaluation.suite_file import Report


def evaluate(
    model: Model,
    edit: Edit | str | Path | None,
    *,
    concept: str | Concept | None = None,
    samples: int | None = None,
    full: bool = False,
    effective_only: bool = False,
    seed: int = 0,
    clip: str | Path | None = None,
    judge: Judge | str | Path | None = None,
    judges: Judges | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Measure what an edit made a model forget, and what it kept.

    Both models draw the same prompts from the same noise, and judges say what they see. The unedited model's pictures
    are cached.

    Args:
        model: The edit's base.
        edit: The edit, its run folder, or None for the unedited model.
        concept: The target; by default the edit's own.
        samples: About how many pictures to draw with the edit.
        full: Draw as many as figures to publish need.
        effective_only: Leave target prompts out of UA on which the unedited model does not show the target.
        seed: First seed of every prompt.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        judge: Who names the target's kind, in place of the model's own judge: a judge, or what
            `aizheimer.evaluation.judges.named_judge` loads: ``"nudenet"``, a folder, or ``"faces:FOLDER"``.
        judges: Who looks; by default the model's own.
        progress: Called with (pictures done, pictures in all).

    Returns:
        UA, IRA and CRA beside the unedited model's values, the neighbours one by one, and flags.

    Raises:
        InputError: No concept is named, the judge that is given does not know it, or both of two are given that
            exclude each other: ``samples`` and ``full``, ``judge`` and ``judges``.
        EditError: The edit was made for another base.
    """
    from aizheimer.evaluation.evaluate import evaluate as measure
    from aizheimer.evaluation.judges import judges_for

    refuse_sharding("evaluate")
    _one_of(judge, judges)
    settings = _settings(samples, full=full, seed=seed, effective_only=effective_only)
    backbone = load_model(model)
    edit = load_edit(edit) if isinstance(edit, str | Path) else edit
    target = _target(concept, edit, world=backbone.world)
    looking = judges or judges_for(target, world=backbone.world, clip=clip, judge=judge)
    if judge is not None:
        _require_known(target, getattr(looking, target.kind))
    return measure(
        backbone.pipe, edit, concept=target, world=backbone.world, judges=looking, settings=settings, progress=progress
    )


def draw_share(
    model: Model,
    edit: Edit | str | Path | None,
    share: str,
    *,
    concept: str | Concept | None = None,
    samples: int | None = None,
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> int:
    """Draw one share of an evaluation's pictures into the cache; `evaluate` with the same arguments finds them there.

    Args:
        model: The edit's base.
        edit: The edit, its run folder, or None for the unedited model.
        share: Which of how many, such as ``"2/4"``.
        concept: The target; by default the edit's own.
        samples: See `evaluate`.
        full: See `evaluate`.
        seed: See `evaluate`.
        progress: Called with (pictures done, pictures in all) of this share.

    Returns:
        How many pictures were drawn.

    Raises:
        InputError: ``share`` is none, or what `evaluate` refuses.
    """
    from aizheimer.evaluation.evaluate import draw_share as draw
    from aizheimer.evaluation.shares import Share

    part, settings = Share.parse(share), _settings(samples, full=full, seed=seed)
    backbone = load_model(model)
    edit = load_edit(edit) if isinstance(edit, str | Path) else edit
    target = _target(concept, edit, world=backbone.world)
    return draw(
        backbone.pipe, edit, concept=target, world=backbone.world, settings=settings, share=part, progress=progress
    )


def attack(
    model: Model,
    edit: Edit | str | Path | None,
    *,
    attack: str | Attack,
    concept: str | Concept | None = None,
    settings: AttackSettings | None = None,
    controls: Controls = True,
    clip: str | Path | None = None,
    judge: Judge | str | Path | None = None,
    progress: StageProgress | None = None,
    **parameters: Any,
) -> AttackRun:
    """Try to bring back what an edit made a model forget, and say whether that succeeded.

    Args:
        model: The edit's base, bit-identical afterwards.
        edit: The edit, its run folder, or None to attack the unedited model.
        attack: An attack's name, or one loaded.
        concept: What should stay forgotten; by default the edit's own.
        settings: How many pictures decide, and how they are drawn.
        controls: Also attack the unedited model, and there from a neighbour's words if the attack leaves the words as
            they are; and run its random control, which ``"unedited"`` leaves out.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        judge: Who names the target's kind, in place of the model's own judge: a judge, or what
            `aizheimer.evaluation.judges.named_judge` loads: ``"nudenet"``, a folder, or ``"faces:FOLDER"``.
        progress: Called with (stage, done, total).
        **parameters: Parameters of the attack, if it is given by name.

    Returns:
        The rates before and after beside the controls, with the pictures.

    Raises:
        InputError: No concept or no such attack, a parameter is wrong, or no judge can see the concept.
        NotApplicable: This cannot be done to this edit.
    """
    from aizheimer.attacks.load import load_attack
    from aizheimer.attacks.run import load_judge, run_attack

    if not isinstance(attack, str) and parameters:
        raise InputError(f"Got a loaded attack and parameters ({', '.join(parameters)}) beside it; put them into it.")
    chosen = load_attack(attack, dotted(parameters)) if isinstance(attack, str) else attack
    backbone = load_model(model)
    edit = load_edit(edit) if isinstance(edit, str | Path) else edit
    target = _target(concept, edit, world=backbone.world)
    looking = load_judge(target, world=backbone.world, clip=clip, judge=judge)
    return run_attack(
        chosen, backbone=backbone, edit=edit, concept=target, judge=looking, settings=settings, controls=controls,
        progress=progress,
    )  # fmt: skip


def evaluate_suites(
    model: Model,
    edit: Edit | str | Path | None,
    suites: Sequence[str | Path],
    *,
    concept: str | Concept | None = None,
    effective_only: bool = False,
    seed: int = 0,
    clip: str | Path | None = None,
    judge: Judge | str | Path | None = None,
    judges: Judges | None = None,
    progress: Report | None = None,
    keep: Callable[[str, SuiteResult], None] | None = None,
) -> dict[str, SuiteResult]:
    """Ask an edit the questions of one or more suites; pictures that two of them want are drawn once.

    Args:
        model: The edit's base.
        edit: The edit, its run folder, or None for the unedited model.
        suites: Names of suites (``"families"``), or their YAML files.
        concept: The target; by default the edit's own.
        effective_only: Leave prompts out on which the unedited model does not show the target; not all suites know it.
        seed: First seed.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        judge: Who names the target's kind, in place of the model's own judge: a judge, or what
            `aizheimer.evaluation.judges.named_judge` loads: ``"nudenet"``, a folder, or ``"faces:FOLDER"``.
        judges: Who looks; by default the model's own.
        progress: Called with (suite, stage, done, total).
        keep: Called with each suite's name and result as soon as it is there.

    Returns:
        Results by the suites' names.

    Raises:
        InputError: A suite, or a key of its file, is unknown; or it cannot ask this of the model, target or judge.

    Example:
        >>> evaluate_suites("emoji", "runs/cat", ["families"])["families"].figures["ua.worst"]  # doctest: +SKIP
    """
    from aizheimer.evaluation.judges import judges_for
    from aizheimer.evaluation.settings import EvaluationSettings
    from aizheimer.evaluation.suite import Scene
    from aizheimer.evaluation.suite_file import load_suites, require_judged, run_suites

    refuse_sharding("evaluate")
    loaded = load_suites(suites)
    loaded = [suite.with_parameters(effective_only=True) for suite in loaded] if effective_only else loaded
    _one_of(judge, judges)
    if judge is not None:
        require_judged(loaded)
    backbone = load_model(model)
    edit = load_edit(edit) if isinstance(edit, str | Path) else edit
    target = _target(concept, edit, world=backbone.world)
    looking = judges or judges_for(target, world=backbone.world, clip=clip, judge=judge)
    scene = Scene(backbone=backbone, edit=edit, concept=target, judges=looking, settings=EvaluationSettings(seed=seed))
    return run_suites(loaded, scene, progress=progress, keep=keep)


def _one_of(judge: object, judges: Judges | None) -> None:
    if judge is not None and judges is not None:
        raise InputError("Got judge and judges; put the judge into them.")


def _require_known(concept: Concept, judge: Judge) -> None:
    from aizheimer.detectors.base import find_class
    from aizheimer.errors import did_you_mean

    if find_class(judge, concept.target) is None:
        hint = did_you_mean(concept.target, judge.classes)
        raise InputError(f"{judge.name} has {len(judge.classes)} classes, none of them {concept.target!r}.{hint}")


def _settings(samples: int | None, *, full: bool, seed: int, **fields: Any) -> EvaluationSettings:
    """Return how much an evaluation draws."""
    from aizheimer.evaluation.settings import EvaluationSettings

    if full and samples is not None:
        raise InputError("Got full and samples; choose one.")
    if samples is not None and samples < 3:
        raise InputError(f"samples: got {samples}; wanted 3 or more.")
    return EvaluationSettings.of_size(samples, full=full, seed=seed, **fields)


def _target(concept: str | Concept | None, edit: Edit | None, *, world: World) -> Concept:
    """Return what to look for: the concept that is named, else the edit's own."""
    if concept is not None:
        return as_concept(concept, world=world)
    if edit is None:
        raise InputError("Got neither an edit nor a concept; name the concept to look for.")
    return edit.provenance.concept.to_concept()
