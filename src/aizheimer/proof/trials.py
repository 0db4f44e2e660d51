"""Ask an edit every question that is registered, and keep the answers in its run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aizheimer._registry import ATTACKS, SUITES
from aizheimer.attacks.base import AttackSettings
from aizheimer.attacks.results import AttackResult
from aizheimer.attacks.run import judge_for, run_attack
from aizheimer.edits.edit import Edit
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suite_file import load_suite
from aizheimer.proof.findings import ATTACK, SUITE


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What was asked, and what could not be.

    Args:
        suites: By name.
        attacks: By name.
        refused: Why a suite or an attack could not be put to this edit: name to reason.
    """

    suites: Mapping[str, SuiteResult] = field(default_factory=dict)
    attacks: Mapping[str, AttackResult] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def run_trials(
    scene: Scene,
    *,
    folder: Path,
    suites: Iterable[str] | None = None,
    attacks: Iterable[str] | None = None,
    attack_settings: AttackSettings | None = None,
    controls: bool = True,
    progress: StageProgress | None = None,
) -> Trials:
    """Run suites and attacks on an edit; what is in the folder already is not run again.

    Args:
        scene: The edit and how its pictures are drawn.
        folder: The run folder: ``suite-<name>.json`` and ``attack-<name>.json`` are written into it, each as soon as it
            is known, so that an interruption costs one of them.
        suites: Names; None takes all that are registered.
        attacks: The same.
        attack_settings: How many pictures decide, and how they are drawn.
        controls: Also attack the unedited model, and with random words.
        progress: Called with a stage's name, what is done and what there is in all.

    Returns:
        The results; a suite or an attack that means nothing for this model, target or edit is refused with its reason.

    Raises:
        InputError: For a name that is not registered.
    """
    wanted_suites = [SUITES.canonical(name) for name in (SUITES.names() if suites is None else suites)]
    wanted_attacks = [ATTACKS.canonical(name) for name in (ATTACKS.names() if attacks is None else attacks)]
    done = Trials(suites={}, attacks={}, refused={})
    for name in wanted_suites:
        file = folder / f"{SUITE}{name}.json"
        _keep(done.suites, done.refused, name, lambda n=name, f=file: _suite(n, scene, f, progress))
    for name in wanted_attacks:
        file = folder / f"{ATTACK}{name}.json"
        options: dict[str, Any] = {"settings": attack_settings, "controls": controls, "progress": progress}
        _keep(done.attacks, done.refused, name, lambda n=name, f=file, o=options: _attack(n, scene, f, **o))
    return done


def _keep(into: Any, refused: Any, name: str, answer: Callable[[], Any]) -> None:
    try:
        into[name] = answer()
    except InputError as error:
        refused[name] = str(error)


def _suite(name: str, scene: Scene, file: Path, progress: StageProgress | None) -> SuiteResult:
    if file.is_file():
        return SuiteResult.load(file)
    result = load_suite(name).run(scene, progress=_of(name, progress))
    result.save(file)
    return result


def _attack(
    name: str,
    scene: Scene,
    file: Path,
    *,
    settings: AttackSettings | None,
    controls: bool,
    progress: StageProgress | None,
) -> AttackResult:
    if file.is_file():
        return AttackResult.load(file)
    if not isinstance(scene.edit, Edit):
        raise InputError(f"{name}: attacks need an edit of aizheimer, which can be lifted; got {scene.edit!r}")
    judge = judge_for(scene.concept, object_judge=scene.judges.object, style_judge=scene.judges.style)
    found = run_attack(
        ATTACKS.get(name).model_validate({}),
        backbone=scene.backbone,
        edit=scene.edit,
        concept=scene.concept,
        judge=judge,
        settings=settings,
        controls=controls,
        progress=_of(name, progress),
    )
    found.result.save(file)
    return found.result


def _of(name: str, progress: StageProgress | None) -> StageProgress | None:
    """Return the progress of many suites and attacks as that of one of them."""
    return None if progress is None else lambda stage, done, total: progress(f"{name}: {stage}", done, total)
