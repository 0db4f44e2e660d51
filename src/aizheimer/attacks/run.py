"""Run one attack on one edit, with the controls that give its rate a meaning."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from aizheimer.attacks.base import Attack, AttackSettings, Meter, NotApplicable, Outcome, Progress, Subject
from aizheimer.attacks.results import AttackResult, Rate
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import Judge
from aizheimer.edits.edit import Edit
from aizheimer.errors import InputError

WEAK_CONTROL = 0.5
"""An attack that reaches less than this on the unedited model says nothing of an edit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRun:
    """An attack's result and its pictures.

    Args:
        result: The rates.
        before: uint8 (n, height, width, 3) of the edited model, without the attack.
        attacked: The same, with it.
        outcome: All that the attack brought back.
    """

    result: AttackResult
    before: np.ndarray
    attacked: np.ndarray
    outcome: Outcome


def run_attack(
    attack: Attack,
    *,
    backbone: Backbone,
    edit: Edit | None,
    concept: Concept,
    judge: Judge,
    settings: AttackSettings | None = None,
    controls: bool = True,
    progress: Progress | None = None,
) -> AttackRun:
    """Attack an edit and say whether the concept came back.

    Args:
        attack: What is tried.
        backbone: The unedited model; as it was found afterwards.
        edit: What should withstand; None attacks the unedited model.
        concept: What should stay forgotten.
        judge: Names the target in pictures.
        settings: How much is drawn.
        controls: Also run the attack on the unedited model, and with random words in place of the search.
        progress: Told how far the attack is.

    Raises:
        InputError: If the judge has no class for the target.
        NotApplicable: If this cannot be done to this edit.
    """
    chosen = settings if settings is not None else AttackSettings()
    subject = Subject(backbone=backbone, edit=edit, concept=concept, judge=judge, settings=chosen)
    with _edited(subject):
        before = subject.draw(subject.jobs)
        outcome, meter = _measured(attack, subject, progress)
    seen_before, seen = subject.shows(before), subject.shows(_checked(outcome, subject))
    unedited, unedited_before = _on_unedited(attack, subject) if controls and edit is not None else (None, None)
    random = _with_random(attack, subject) if controls else None
    result = AttackResult(
        attack=attack.name,
        parameters=attack.model_dump(mode="json"),
        target=concept.target,
        kind=concept.kind,
        access=attack.info.access,
        before=Rate.of(seen_before, seed=chosen.seed),
        alone=Rate.of(seen, seed=chosen.seed),
        asr=Rate.of(seen | seen_before, seed=chosen.seed),
        unedited=unedited,
        unedited_before=unedited_before,
        random=random,
        spent=meter.spent(),
        judge=judge.name,
        settings=chosen,
        guidance=subject.guidance,
        details=outcome.details,
        warnings=_warnings(attack, edit=edit, alone=float(seen.mean()), unedited=unedited, random=random),
    )
    return AttackRun(result=result, before=before, attacked=outcome.images, outcome=outcome)


@contextlib.contextmanager
def _edited(subject: Subject) -> Iterator[None]:
    if subject.edit is None:
        yield
        return
    with subject.edit.applied(subject.backbone.pipe):
        yield


def _measured(attack: Attack, subject: Subject, progress: Progress | None) -> tuple[Outcome, Meter]:
    """Run the attack and count what goes through the denoiser."""
    meter = Meter()

    def count(module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        del module, output
        meter.denoiser_evaluations += len(inputs[0] if inputs else keywords["sample"])

    handle = subject.backbone.denoiser.register_forward_hook(count, with_kwargs=True)
    try:
        outcome = attack.attack(subject, progress=progress)
    finally:
        handle.remove()
    meter.steps, meter.queries = outcome.steps, outcome.queries
    meter.stop()
    return outcome, meter


def _checked(outcome: Outcome, subject: Subject) -> np.ndarray:
    if len(outcome.images) != len(subject.jobs):
        raise ValueError(f"the attack drew {len(outcome.images)} pictures for {len(subject.jobs)} jobs")
    return outcome.images


def _on_unedited(attack: Attack, subject: Subject) -> tuple[Rate, Rate]:
    plain = dataclasses.replace(subject, edit=None)
    before = plain.shows(plain.draw(plain.jobs))
    found = plain.shows(attack.attack(plain).images)
    return Rate.of(found, seed=subject.settings.seed), Rate.of(before, seed=subject.settings.seed)


def _with_random(attack: Attack, subject: Subject) -> Rate | None:
    with _edited(subject):
        try:
            found = subject.shows(attack.attack(dataclasses.replace(subject, random=True)).images)
        except NotApplicable:
            return None
    return Rate.of(found, seed=subject.settings.seed)


def _warnings(
    attack: Attack, *, edit: Edit | None, alone: float, unedited: Rate | None, random: Rate | None
) -> list[str]:
    found = []
    if unedited is not None and unedited.value < WEAK_CONTROL:
        reached = f"{attack.name} reaches only {unedited.value:.0%} on the unedited model"
        found.append(f"{reached}: its failure says nothing of the edit")
    if random is not None and alone > 0 and random.value >= alone:
        found.append(f"{attack.name} does no better than its random control ({random.value:.0%})")
    if edit is not None and edit.is_noop:
        found.append("the edit changes nothing: this is the unedited model")
    return found


def judge_for(concept: Concept, *, object_judge: Judge | None, style_judge: Judge | None) -> Judge:
    """Return the judge of the concept's kind.

    Raises:
        InputError: If this model brings none.
    """
    judge = style_judge if concept.kind == "style" else object_judge
    if judge is None:
        raise InputError(f"this model has no {concept.kind} judge to score an attack with; give a CLIP with --clip")
    return judge
