"""Ask an edit every question that is registered, and keep the answers in its run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aizheimer._registry import ATTACKS, SUITES
from aizheimer.attacks.base import Attack, AttackSettings, Controls, Subject
from aizheimer.attacks.load import LoadedAttack, labelled
from aizheimer.attacks.results import AttackResult
from aizheimer.attacks.resume import finished
from aizheimer.attacks.run import judge_for, run_attack
from aizheimer.edits.edit import Edit
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.reuse import Say, found_before, quiet
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suite_file import LoadedSuite, load_suites
from aizheimer.proof.findings import ATTACK, SUITE


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What was asked, and what could not be.

    Args:
        suites: By label: a suite's name, or its file's.
        attacks: By label: an attack's name, or what a plan calls it.
        refused: Why a suite or an attack could not be put to this edit: name to reason.
    """

    suites: Mapping[str, SuiteResult] = field(default_factory=dict)
    attacks: Mapping[str, AttackResult] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def run_trials(
    scene: Scene,
    *,
    folder: Path,
    suites: Iterable[str | Path] | None = None,
    attacks: Iterable[str | Attack | LoadedAttack] | None = None,
    attack_settings: AttackSettings | None = None,
    controls: Controls = True,
    say: Say = quiet,
    progress: StageProgress | None = None,
) -> Trials:
    """Run suites and attacks on an edit; a result that is in the folder is kept if it was made from the same things.

    Those are the edit, the parameters and what is in the files that they name, the settings and the judges.

    Args:
        scene: The edit and how its pictures are drawn.
        folder: The run folder: ``suite-<label>.json`` and ``attack-<label>.json`` are written into it, each as soon as
            it is known, so that an interruption costs one of them.
        suites: Names, or YAML files; None takes all that are registered.
        attacks: Names, or attacks with their parameters, under labels where one is run twice; None takes all that are
            registered.
        attack_settings: How many pictures decide, and how they are drawn.
        controls: Also attack the unedited model, and with random words.
        say: Told in one line what is measured again, and why.
        progress: Called with a stage's name, what is done and what there is in all.

    Returns:
        The results; a suite or an attack that means nothing for this model, target or edit is refused with its reason.

    Raises:
        InputError: For a name that is not registered, a label given twice, or a suite's file that cannot be read.
    """
    wanted_suites = load_suites(SUITES.names() if suites is None else list(suites))
    wanted_attacks = labelled(ATTACKS.names() if attacks is None else attacks)
    done = Trials(suites={}, attacks={}, refused={})
    told: dict[str, Any] = {"say": say, "progress": progress}
    for suite in wanted_suites:
        file = folder / f"{SUITE}{suite.label}.json"
        _keep(done.suites, done.refused, suite.label, lambda s=suite, f=file: _suite(s, scene, f, **told))
    for attack in wanted_attacks:
        file = folder / f"{ATTACK}{attack.label}.json"
        options: dict[str, Any] = {"settings": attack_settings, "controls": controls, **told}
        _keep(done.attacks, done.refused, attack.label, lambda a=attack, f=file, o=options: _attack(a, scene, f, **o))
    return done


def _keep(into: Any, refused: Any, name: str, answer: Callable[[], Any]) -> None:
    try:
        into[name] = answer()
    except InputError as error:
        refused[name] = str(error)


def _suite(
    suite: LoadedSuite, scene: Scene, file: Path, *, say: Say, progress: StageProgress | None
) -> SuiteResult:  # fmt: skip
    found = found_before(file, SuiteResult.load, asked=lambda: suite.asked(scene), say=say)
    if found is not None:
        return found
    result = suite.run(scene, progress=_of(suite.label, progress))
    result.save(file)
    return result


def _attack(
    loaded: LoadedAttack,
    scene: Scene,
    file: Path,
    *,
    settings: AttackSettings | None,
    controls: Controls,
    say: Say,
    progress: StageProgress | None,
) -> AttackResult:
    attack = loaded.attack
    if not isinstance(scene.edit, Edit):
        raise InputError(f"{attack.name}: attacks need an edit of aizheimer, which can be lifted; got {scene.edit!r}")
    judge = judge_for(scene.concept, object_judge=scene.judges.object, style_judge=scene.judges.style)
    drawn = settings or AttackSettings()
    subject = Subject(
        backbone=scene.backbone, edit=scene.edit, concept=scene.concept, judge=judge, settings=drawn
    )  # fmt: skip
    found = finished(file, attack, subject=subject, controls=controls, say=say)
    if found is not None:
        return found
    made = run_attack(
        attack, backbone=scene.backbone, edit=scene.edit, concept=scene.concept, judge=judge, settings=drawn,
        controls=controls, progress=_of(loaded.label, progress),
    ).result.model_copy(update={"label": loaded.label})  # fmt: skip
    made.save(file)
    return made


def _of(name: str, progress: StageProgress | None) -> StageProgress | None:
    """Return the progress of many suites and attacks as that of one of them."""
    return None if progress is None else lambda stage, done, total: progress(f"{name}: {stage}", done, total)
