"""Is it gone under every name: unlearning accuracy by family of prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from aizheimer.concepts.families import NAMES, NEGATION, Family, prompt_families
from aizheimer.detectors.base import Judge, see
from aizheimer.errors import InputError, did_you_mean
from aizheimer.evaluation.calibration import calibrate_plan
from aizheimer.evaluation.evaluate import planned
from aizheimer.evaluation.flags import void_reasons
from aizheimer.evaluation.functional.accuracy import forgotten
from aizheimer.evaluation.functional.effective import (
    EFFECTIVE_SHARE,
    LEFT_OUT,
    ineffective,
    ineffective_words,
)
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.plan import PlannedImage
from aizheimer.evaluation.results import Calibration, Metric
from aizheimer.evaluation.settings import AtLeastOne
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suites._asking import draw, look, pictures, target_class, without_repetitions

PROTOCOL = "share of pictures of the family {name!r} that the judge does not call {target!r}{left_out}"
NEGATED = "share of pictures of prompts that ask not to draw {target!r} in which the judge sees it; low is right"


@dataclass(frozen=True)
class _Answers:
    """What was seen in one family's pictures: 1.0 where the target is not, of both models, and which prompts fail."""

    family: Family
    plan: list[PlannedImage]
    original: np.ndarray
    edited: np.ndarray
    ineffective: dict[str, float]


class Families(BaseModel):
    """Ask for the target in every way that words allow, and see which brings it back.

    Each prompt is drawn from the first seed, then each from the next, until a family has its pictures. A family that
    the world has no words for is said to be missing and counts nowhere. ``ua.worst`` is the smallest of the families'
    accuracies: the smallest of several uncertain numbers leans low.

    References:
        Six-CD (arXiv 2406.14855) keeps only prompts that work on the unedited model; HUB (arXiv 2410.05664) asks in
        several languages.

    Example:
        >>> Families(families=("name", "synonyms")).images
        20
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "families"

    images: AtLeastOne = Field(default=20, description="Pictures of each family, with the edit and without.")
    families: tuple[str, ...] = Field(default=NAMES, min_length=1, description="Which families are asked.")
    translations: dict[str, str] = Field(
        default_factory=dict, description="Names of the target by language, beside those that the world has."
    )
    prompts: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Further families: name to prompts that ask for the target."
    )
    effective_only: bool = Field(
        default=False, description="Leave prompts out on which the unedited model does not show the target."
    )
    effective_share: float = Field(
        default=EFFECTIVE_SHARE,
        gt=0,
        le=1,
        description="A prompt is effective if so many of its pictures show the target.",
    )

    @field_validator("families")
    @classmethod
    def _known(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        for name in families:
            if name not in NAMES:
                raise ValueError(f"got {name!r}, wanted some of {', '.join(NAMES)}.{did_you_mean(name, NAMES)}")
        return families

    @field_validator("prompts")
    @classmethod
    def _own(cls, prompts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, texts in prompts.items():
            if name in NAMES or name == "worst":
                raise ValueError(f"{name!r} is a family's name already; choose another")
            if not texts:
                raise ValueError(f"{name}: got no prompts; give some or leave it out")
        return prompts

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, judge and count.

        Returns:
            ``ua.<family>`` and ``ua.worst``, ``shown.negation``; tables ``families``, ``worst`` and ``ineffective``.

        Raises:
            InputError: A prompt stands twice in a family, or the judge does not know the target.
        """
        without_repetitions(self.families, what="families", suite=self.name)
        for name, texts in self.prompts.items():
            without_repetitions([text.strip() for text in texts], what=f"prompts.{name}", suite=self.name)
        judge = scene.judge(scene.concept.kind)
        target = target_class(judge, scene.concept, suite=self.name)
        asked, missing = self._families(scene)
        plans = [
            pictures(family.prompts, scene.concept, role="target", count=self.images, seed=scene.settings.seed)
            for family in asked
        ]
        pairs = draw(scene, [image for plan in plans for image in plan], progress, stage="families")
        seen = look(judge, pairs)
        gone = forgotten(seen.original, target), forgotten(seen.edited, target)
        answers, start = [], 0
        for family, plan in zip(asked, plans, strict=True):
            rows = slice(start, start + len(plan))
            answers.append(self._answer(family, plan, gone[0][rows], gone[1][rows]))
            start += len(plan)
        result = self._conclude(scene, judge.name, answers, missing)
        errors = self._judge_errors(scene, judge, target, progress)
        warnings = [*void_reasons(seen.edited), *result.warnings]
        return result.model_copy(update={"calibration": errors, "warnings": warnings})

    def _judge_errors(
        self, scene: Scene, judge: Judge, target: str, progress: StageProgress | None
    ) -> Calibration | None:  # fmt: skip
        """Say how often the judge errs on the plain prompts of an evaluation, whose pictures are mostly there already.

        A family's own pictures would not do: that a misspelling shows no target is no mistake of the judge's.
        """
        world = scene.backbone.world
        try:
            plan, _ = planned(scene.backbone, scene.concept, world=world, settings=scene.settings)
        except InputError:  # the world has no prompts of its own for this
            return None
        plain = draw(dataclasses.replace(scene, edit=None), plan, progress, stage="judge").original
        labels = see(judge, plain).labels
        return calibrate_plan(target, judge=judge.name, labels=labels, plan=plan, level=scene.settings.level)

    def _families(self, scene: Scene) -> tuple[list[Family], list[Family]]:
        """Return the families that can be asked, and those that cannot."""
        found = prompt_families(scene.concept, scene.backbone.world, limit=self.images, translations=self.translations)
        chosen = [family for family in found if family.name in self.families]
        chosen += [Family(name=name, prompts=texts[: self.images]) for name, texts in self.prompts.items()]
        asked = [family for family in chosen if family.prompts]
        if not asked:
            raise InputError(f"suite {self.name}: {'; '.join(f'{f.name}: {f.reason}' for f in chosen)}")
        return asked, [family for family in chosen if not family.prompts]

    def _answer(
        self, family: Family, plan: list[PlannedImage], original: np.ndarray, edited: np.ndarray
    ) -> _Answers:  # fmt: skip
        """Find the prompts on which the unedited model shows the target too seldom."""
        failing = ineffective([image.prompt for image in plan], 1 - original, share=self.effective_share)
        return _Answers(family, plan, original, edited, failing)

    def _conclude(
        self, scene: Scene, judge: str, answers: Sequence[_Answers], missing: Sequence[Family]
    ) -> SuiteResult:  # fmt: skip
        figures: dict[str, Metric] = {}
        warnings = [f"not available: {family.name}, for {family.reason}" for family in missing]
        for answer in answers:
            metric = self._metric(scene, judge, answer)
            if metric is None:
                warnings.append(f"not measured: {answer.family.name}, for none of its prompts is effective")
                continue
            negated = answer.family.name == NEGATION
            figures["shown.negation" if negated else f"ua.{answer.family.name}"] = metric
        tables: dict[str, list[dict[str, Any]]] = {
            "families": [_row(answer, figures) for answer in answers]
            + [{"family": family.name, "available": False, "reason": family.reason} for family in missing],
            "ineffective": [
                {"family": answer.family.name, "prompt": prompt, "shown": share}
                for answer in answers
                if answer.family.name != NEGATION
                for prompt, share in answer.ineffective.items()
            ],
        }
        if worst := _worst(figures):
            name, metric = worst
            count = sum(key.startswith("ua.") for key in figures)
            protocol = f"smallest accuracy of {count} families, that of {name!r}: {metric.protocol}"
            figures["ua.worst"] = metric.model_copy(update={"protocol": protocol})
            tables["worst"] = [{"family": name, "ua": metric.value, "unedited": metric.original}]
        asked = sum(len(answer.family.prompts) for answer in answers if answer.family.name != NEGATION)
        warnings += ineffective_words(len(tables["ineffective"]), asked, left_out=self.effective_only)
        return SuiteResult.of(self, scene, figures, tables=tables, warnings=warnings)

    def _metric(self, scene: Scene, judge: str, answer: _Answers) -> Metric | None:
        name, target = answer.family.name, scene.concept.target
        if name == NEGATION:
            shown = 1 - answer.original, 1 - answer.edited
            return scene.metric(*shown, judge=judge, protocol=NEGATED.format(target=target))
        left_out = answer.ineffective if self.effective_only else {}
        rows = np.array([image.prompt not in left_out for image in answer.plan], dtype=bool)
        if not rows.any():
            return None
        protocol = PROTOCOL.format(name=name, target=target, left_out=LEFT_OUT if self.effective_only else "")
        return scene.metric(answer.original[rows], answer.edited[rows], judge=judge, protocol=protocol)


def _worst(figures: dict[str, Metric]) -> tuple[str, Metric] | None:
    """Return the family with the smallest accuracy, the first of them in a tie."""
    found = [(key.removeprefix("ua."), metric) for key, metric in figures.items() if key.startswith("ua.")]
    return min(found, key=lambda pair: pair[1].value, default=None)


def _row(answer: _Answers, figures: dict[str, Metric]) -> dict[str, Any]:
    """Return a family's row: how often each model shows the target, all pictures counted, and what was left out."""
    metric = figures.get(f"ua.{answer.family.name}")
    return {
        "family": answer.family.name,
        "available": True,
        "ua": None if metric is None else metric.value,
        "shown_unedited": float(1 - answer.original.mean()),
        "shown_edited": float(1 - answer.edited.mean()),
        "pictures": len(answer.plan),
        "prompts": len(answer.family.prompts),
        "ineffective": len(answer.ineffective) if answer.family.name != NEGATION else None,
        "example": answer.family.prompts[0],
    }
