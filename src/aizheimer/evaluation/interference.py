"""Several edits of one base: what each forgets alone and in company, and what each does to the others' targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer._records import load_record, save_record
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.detectors.base import Judge, find_class, see
from aizheimer.edits.compose import stack, targets_of
from aizheimer.edits.edit import Edit
from aizheimer.errors import InputError
from aizheimer.evaluation.functional.proportions import wilson_interval
from aizheimer.evaluation.generate import Progress, PromptJob, StageProgress, generate, jobs_in_turn, staged
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.settings import EvaluationSettings

Jobs = Mapping[str, Sequence[PromptJob]]
"""Pictures to draw, by the name that the judge should give them."""


class Share(BaseModel):
    """A share of pictures, with Wilson's interval.

    Example:
        >>> Share.of([True, True, False, True]).value
        0.75
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    interval: tuple[float, float]
    n: int

    @classmethod
    def of(cls, hits: Sequence[bool]) -> Share:
        """Return the share of what is true."""
        return cls(value=float(np.mean(hits)), interval=wilson_interval(sum(hits), len(hits)), n=len(hits))


class Interference(BaseModel):
    """What several edits do to each other and to the rest.

    Attributes:
        schema_version: Of this file.
        model_name: What the model draws.
        edits: Name of every edit: what it forgets.
        methods: What made them.
        owner: By target, the edit that is to forget it.
        unedited: By target, the share of its pictures judged to show it, of the unedited model.
        matrix: The same under each edit alone, by edit and target.
        company: The same under all edits together.
        retained: Further objects, none of them a target, whose pictures must stay right.
        retained_unedited: Share of these judged right, of the unedited model.
        retained_alone: The same under each edit alone.
        retained_company: The same under all edits together.
        images: Pictures of each target.
        settings: How they were drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model_name: str
    edits: list[str]
    methods: list[str]
    owner: dict[str, str]
    unedited: dict[str, Share]
    matrix: dict[str, dict[str, Share]]
    company: dict[str, Share]
    retained: list[str] = Field(default_factory=list)
    retained_unedited: Share
    retained_alone: dict[str, Share]
    retained_company: Share
    images: int
    settings: EvaluationSettings

    def alone(self, target: str) -> float:
        """Return UA of a target under its own edit alone."""
        return 1 - self.matrix[self.owner[target]][target].value

    def together(self, target: str) -> float:
        """Return UA of a target under all edits together."""
        return 1 - self.company[target].value

    def lost(self, edit: str, target: str) -> float:
        """Return how much of a target's pictures an edit alone takes: the unedited share minus the edited one."""
        return self.unedited[target].value - self.matrix[edit][target].value

    def save(self, path: str | Path) -> None:
        """Write it as JSON, all of it or nothing."""
        save_record(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Interference:
        """Read what ``save`` wrote.

        Raises:
            DataError: If the file is missing or is something else.
        """
        damaged = "no matrix of edits ({reason}); run `aizheimer interference` again"
        return load_record(cls, path, missing="run `aizheimer interference` first", damaged=damaged)


@dataclass(frozen=True, kw_only=True)
class Company:
    """Edits with their targets, and the pictures that decide.

    Args:
        edits: By name.
        targets: The concepts that they forget, by name, each with its edit's name.
        jobs: Pictures of every target.
        kept: Pictures of what none of them forgets.
    """

    edits: dict[str, Edit]
    targets: dict[str, tuple[Concept, str]]
    jobs: Jobs
    kept: Jobs


def measure(
    backbone: Backbone,
    edits: Sequence[Edit],
    *,
    judges: Judges,
    images: int = 5,
    retained: int = 60,
    settings: EvaluationSettings | None = None,
    progress: StageProgress | None = None,
) -> Interference:
    """Draw every target under every edit alone, under all together and under none, and let the judges look.

    Pictures are kept in the cache, so that a second call finds what the first one drew.

    Args:
        backbone: The base of all edits; left as it was found.
        edits: Two or more, each of other targets.
        judges: Who looks.
        images: Pictures of each target.
        retained: Further objects, a picture of each.
        settings: Steps, guidance, seed, batch size and precision.
        progress: Called with (stage, done, total).

    Returns:
        The shares.

    Raises:
        InputError: There are fewer than two edits, two forget the same, or a judge does not know a target.
        EditError: An edit was made for another base.
    """
    settings = settings or EvaluationSettings()
    company = assembled(backbone.world, edits, images=images, retained=retained, seed=settings.seed)
    for concept, _ in company.targets.values():
        _judge_of(judges, concept)

    def looked(edit: Edit | None, stage: str) -> tuple[dict[str, Share], Share]:
        if edit is None:
            return _look(backbone, company, judges, settings=settings, progress=staged(progress, stage))
        with edit.applied(backbone.pipe):
            return _look(backbone, company, judges, settings=settings, progress=staged(progress, stage))

    plain, plain_kept = looked(None, "unedited")
    alone = {name: looked(edit, f"{name} forgotten") for name, edit in company.edits.items()}
    together, together_kept = looked(stack(*company.edits.values()), "all together")
    return Interference(
        model_name=backbone.world.name,
        edits=list(company.edits),
        methods=[edit.provenance.method for edit in company.edits.values()],
        owner={target: own for target, (_, own) in company.targets.items()},
        unedited=plain,
        matrix={name: shares for name, (shares, _) in alone.items()},
        company=together,
        retained=list(company.kept),
        retained_unedited=plain_kept,
        retained_alone={name: kept for name, (_, kept) in alone.items()},
        retained_company=together_kept,
        images=images,
        settings=settings,
    )


def assembled(world: World, edits: Sequence[Edit], *, images: int, retained: int, seed: int) -> Company:
    """Name the edits by what they forget, and plan the pictures.

    Raises:
        InputError: There are fewer than two edits, two forget the same, one forgets nothing, or nothing is left to be
            kept.
    """
    if len(edits) < 2:
        raise InputError(f"got {len(edits)} edit; name two or more, whose effect on each other is to be seen.")
    named: dict[str, Edit] = {}
    targets: dict[str, tuple[Concept, str]] = {}
    for edit in edits:
        words, own = targets_of(edit), edit.provenance.concept.to_concept()
        if not words:
            raise InputError(f"the edit of '{own.target}' forgets nothing: no part of it is above 0; leave it out.")
        name = " + ".join(words)
        named[name] = edit
        for word in words:
            if word.casefold() in {known.casefold() for known in targets}:
                raise InputError(f"'{word}' is forgotten by two of the edits; give one of them.")
            targets[word] = (own if word == own.target else world.beside(word, own), name)
    jobs = {word: _asking(world.prompts(concept), images, seed=seed) for word, (concept, _) in targets.items()}
    prompts = {label: world.prompts_for(label) for label in retained_labels(world, list(targets), retained)}
    kept = {label: [PromptJob(own[i % len(own)], seed)] for i, (label, own) in enumerate(prompts.items())}
    if not kept:
        raise InputError(f"retained: got {retained}; wanted 1 or more of a world that has other objects.")
    return Company(edits=named, targets=targets, jobs=jobs, kept=kept)


def retained_labels(world: World, targets: Sequence[str], count: int) -> list[str]:
    """Return objects of a world that are no target, at random but always the same, in the world's order."""
    gone = {target.casefold() for target in targets}
    others = [item.label for item in world.vocabulary if item.label.casefold() not in gone]
    chosen = np.random.default_rng(1).permutation(len(others))[:count]
    return [others[i] for i in sorted(chosen)]


def judged_right(
    backbone: Backbone,
    jobs: Jobs,
    judge: Judge,
    *,
    settings: EvaluationSettings,
    progress: Progress | None = None,
) -> dict[str, list[bool]]:
    """Return, by name, which of its pictures are judged to show it, of the model as it is now."""
    flat = [(name, job) for name, own in jobs.items() for job in own]
    if not flat:
        return {}
    pictures = generate(
        backbone.pipe,
        [job for _, job in flat],
        steps=settings.steps,
        guidance=settings.guidance if settings.guidance is not None else backbone.world.guidance,
        batch_size=settings.batch_size,
        precision=settings.precision,
        progress=progress,
    )
    known = {name: find_class(judge, name) for name in jobs}
    found: dict[str, list[bool]] = {}
    for (name, _), seen in zip(flat, see(judge, pictures).labels, strict=True):
        found.setdefault(name, []).append(seen is not None and seen == known[name])
    return found


def _look(
    backbone: Backbone, company: Company, judges: Judges, *, settings: EvaluationSettings, progress: Progress | None
) -> tuple[dict[str, Share], Share]:
    """Return the share of each target's pictures that show it, and that of the kept pictures."""
    right: dict[str, list[bool]] = {}
    for kind in ("object", "style"):
        jobs = {word: company.jobs[word] for word, (concept, _) in company.targets.items() if concept.kind == kind}
        judge = getattr(judges, kind)
        if jobs and judge is not None:
            right |= judged_right(backbone, jobs, judge, settings=settings, progress=progress)
    kept = judged_right(backbone, company.kept, _object_judge(judges), settings=settings, progress=progress)
    shares = {word: Share.of(right[word]) for word in company.targets}
    return shares, Share.of([hit for hits in kept.values() for hit in hits])


def _asking(prompts: Sequence[str], count: int, *, seed: int) -> list[PromptJob]:
    """Return so many pictures, over all the prompts as evenly as can be."""
    spread = [prompts[i * len(prompts) // count] for i in range(count)] if len(prompts) > count else prompts
    return jobs_in_turn(spread, count=count, seed=seed)


def _object_judge(judges: Judges) -> Judge:
    if judges.object is None:
        raise InputError("this model brings no object judge; name a CLIP folder to judge with (--clip).")
    return judges.object


def _judge_of(judges: Judges, concept: Concept) -> Judge:
    judge = judges.style if concept.kind == "style" else _object_judge(judges)
    if judge is None or find_class(judge, concept.target) is None:
        raise InputError(f"no {concept.kind} judge knows '{concept.target}', so nobody can say whether it is gone.")
    return judge
