"""Run one attack on one edit, with the controls that give its rate a meaning."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np

from aizheimer.attacks._controls import ControlRates, control_rates, edited
from aizheimer.attacks.base import (
    Attack,
    AttackSettings,
    Controls,
    Meter,
    NotApplicable,
    Outcome,
    Progress,
    Subject,
    target_class,
)
from aizheimer.attacks.results import Answers, AttackResult, Rate
from aizheimer.attacks.resume import asked_of
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.counting import counted
from aizheimer.backbones.families import FAMILIES
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.detectors.base import Judge
from aizheimer.edits.edit import Edit
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import PromptJob, StageProgress, staged
from aizheimer.evaluation.judges import judges_for

WEAK_CONTROL = 0.5
"""An attack that reaches less than this on the unedited model says nothing of an edit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sight:
    """Pictures, and in which of them the judge sees the target.

    Args:
        images: uint8 (n, height, width, 3).
        seen: bool (n,).
    """

    images: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, subject: Subject, images: np.ndarray) -> Sight:
        """Let the judge look."""
        return cls(images=images, seen=subject.shows(images))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRun:
    """An attack's result and its pictures.

    Args:
        result: The rates.
        jobs: Prompt and seed of each picture.
        before: What the edited model draws without the attack.
        attacked: The same, with it.
        unedited: What the unedited model draws, without the attack.
        outcome: All that the attack brought back.
    """

    result: AttackResult
    jobs: list[PromptJob]
    before: Sight
    attacked: Sight
    unedited: Sight
    outcome: Outcome


def run_attack(
    attack: Attack,
    *,
    backbone: Backbone,
    edit: Edit | None,
    concept: Concept,
    judge: Judge,
    settings: AttackSettings | None = None,
    controls: Controls = True,
    progress: StageProgress | None = None,
) -> AttackRun:
    """Attack an edit and say whether the concept came back.

    Args:
        attack: What is tried.
        backbone: The unedited model; as it was found afterwards.
        edit: What should withstand; None attacks the unedited model.
        concept: What should stay forgotten.
        judge: Names the target in pictures.
        settings: How much is drawn.
        controls: Also run the attack on the unedited model, where it must succeed, and there from a neighbour's words
            if it leaves the words as they are; and its random control, which ``"unedited"`` leaves out.
        progress: Told how far the attack and its controls are.

    Raises:
        InputError: If the judge has no class for the target.
        NotApplicable: If this cannot be done to this edit.
    """
    _check_family(attack, backbone)
    target_class(judge, concept)
    chosen = settings if settings is not None else AttackSettings()
    subject = Subject(backbone=backbone, edit=edit, concept=concept, judge=judge, settings=chosen)
    with edited(subject):
        before = _without(subject)
        outcome, meter = _measured(attack, subject, staged(progress, attack.name))
    attacked = Sight.of(subject, _checked(outcome, subject))
    plain = dataclasses.replace(subject, edit=None)
    original = before if edit is None else _without(plain)
    found = control_rates(attack, subject, controls=controls, progress=progress)
    of = partial(Rate.of, seed=chosen.seed)
    result = AttackResult(
        **asked_of(attack, subject),
        access=attack.info.access,
        before=of(before.seen),
        alone=of(attacked.seen),
        asr=of(attacked.seen | before.seen),
        unedited_before=of(original.seen) if edit is not None else None,
        unedited=found.unedited,
        random=found.random,
        neighbour=found.neighbour,
        neighbour_words=found.neighbour_words,
        controls=controls,
        spent=meter.spent(),
        details=outcome.details,
        warnings=_warnings(attack, edit=edit, alone=float(attacked.seen.mean()), found=found),
        answers=_answers(before, attacked, None if edit is None else original),
    )
    return AttackRun(
        result=result, jobs=subject.jobs, before=before, attacked=attacked, unedited=original, outcome=outcome
    )


def _answers(before: Sight, attacked: Sight, original: Sight | None) -> Answers:
    plain = None if original is None else original.seen.tolist()
    return Answers(before=before.seen.tolist(), alone=attacked.seen.tolist(), original=plain)


def _check_family(attack: Attack, backbone: Backbone) -> None:
    if backbone.family not in attack.info.families:
        raise NotApplicable(
            f"{attack.name} does not work on {FAMILIES[backbone.family].title}: {attack.info.elsewhere}; "
            f"wanted {attack.info.works_on}."
        )


def _without(subject: Subject) -> Sight:
    """Return what is drawn without the attack, from the cache if it is there: no attack has paid for it."""
    return Sight.of(subject, dataclasses.replace(subject, cached=True).draw(subject.jobs))


def _measured(attack: Attack, subject: Subject, progress: Progress | None) -> tuple[Outcome, Meter]:
    """Run the attack and count what goes through the denoiser."""
    meter = Meter()
    with counted(subject.backbone) as count:
        outcome = attack.attack(subject, progress=progress)
    meter.denoiser_evaluations, meter.steps, meter.queries = count.latents, outcome.steps, outcome.queries
    meter.stop()
    return outcome, meter


def _checked(outcome: Outcome, subject: Subject) -> np.ndarray:
    if len(outcome.images) != len(subject.jobs):
        raise ValueError(f"the attack drew {len(outcome.images)} pictures for {len(subject.jobs)} jobs")
    return outcome.images


def _warnings(attack: Attack, *, edit: Edit | None, alone: float, found: ControlRates) -> list[str]:
    said = []
    if found.unedited is not None and found.unedited.value < WEAK_CONTROL:
        reached = f"{attack.name} reaches only {found.unedited.value:.0%} on the unedited model"
        said.append(f"{reached}: its failure says nothing of the edit")
    if found.random is not None and alone > 0 and found.random.value >= alone:
        said.append(f"{attack.name} does no better than its random control ({found.random.value:.0%})")
    if edit is not None and found.neighbour is not None and found.neighbour.value >= max(alone, WEAK_CONTROL):
        said.append(
            f"{attack.name} brings the target out of '{found.neighbour_words}' on the unedited model "
            f"({found.neighbour.value:.0%}): its success says nothing of the edit"
        )
    if edit is not None and edit.is_noop:
        said.append("the edit changes nothing: this is the unedited model")
    return said


def judge_for(concept: Concept, *, object_judge: Judge | None, style_judge: Judge | None) -> Judge:
    """Return the judge of the concept's kind.

    Raises:
        InputError: If this model brings none.
    """
    judge = style_judge if concept.kind == "style" else object_judge
    if judge is None:
        raise InputError(
            f"this model has no {concept.kind} judge to score an attack with; give --judge, or a CLIP with --clip"
        )
    return judge


def load_judge(
    concept: Concept, *, world: World, clip: str | Path | None = None, judge: Judge | str | Path | None = None
) -> Judge:
    """Load the judge that can see the concept in this world.

    Args:
        concept: What should stay forgotten.
        world: Names its judges.
        clip: Folder of a CLIP to judge with where the world brings no judge.
        judge: One's own, in place of the world's; see `aizheimer.evaluation.judges.named_judge`.

    Raises:
        InputError: If there is none, or it has no class for the concept.
        ModelError: If its folder cannot be loaded.
    """
    judges = judges_for(concept, world=world, clip=clip, judge=judge)
    chosen = judge_for(concept, object_judge=judges.object, style_judge=judges.style)
    target_class(chosen, concept)
    return chosen
