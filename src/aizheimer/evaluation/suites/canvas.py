"""UnlearnCanvas's protocol on a grid of styles and objects: UA, IRA and CRA of one edit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from aizheimer.errors import InputError, did_you_mean
from aizheimer.evaluation.calibration import calibrate_labels
from aizheimer.evaluation.flags import void_reasons
from aizheimer.evaluation.functional.canvas import CanvasAccuracies, canvas_accuracies
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.plan import PlannedImage, stratified
from aizheimer.evaluation.results import Calibration, Metric
from aizheimer.evaluation.settings import AtLeastOne
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suites._asking import (
    Counted,
    Seen,
    draw,
    look,
    require_classes,
    same_name,
    spelled_as,
    without_repetitions,
)


class Canvas(BaseModel):
    """Draw every object in every style from the same seeds, and let two classifiers answer.

    A seed is one initial noise for the whole grid, as in the original, whose generator is seeded anew for each picture.
    What users of UnlearnCanvas count differently are switches: ``photo_counted``, ``photo_prompt`` and
    ``target_in_cross``. Its samplers differ by method; here every edit is drawn alike.

    References:
        Zhang et al., UnlearnCanvas, arXiv 2402.11846; the answer set of its repository.

    Example:
        >>> Canvas(objects=4, seeds=(0,)).count_objects
        4
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "canvas"

    objects: AtLeastOne | tuple[str, ...] = Field(
        default=20, description="Names, or how many of the world's, evenly from its groups and the target with them."
    )
    styles: tuple[str, ...] | None = Field(default=None, description="Names; by default the world's.")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="Initial noises of the whole grid.")
    prompt: str = Field(default="{object} in {style} style", description="With {object} and {style}.")
    photo: str | None = Field(default=None, description="The theme that is no style, if the grid has one: Seed_Images.")
    photo_counted: bool = Field(
        default=False, description="Whether it is one of the styles that IRA or CRA average: 50 others then, else 49."
    )
    photo_prompt: str | None = Field(
        default=None,
        description="Its prompt, with {object}; by default the styles', which for Seed_Images no model was trained on.",
    )
    target_in_cross: bool = Field(default=True, description="Whether CRA counts the pictures of the target, too.")

    effective_only: bool = Field(
        default=False, description="Leave the target's prompts out of UA on which the unedited model does not show it."
    )

    @field_validator("prompt")
    @classmethod
    def _both_fields(cls, prompt: str) -> str:
        if "{object}" not in prompt or "{style}" not in prompt:
            raise ValueError(f"got {prompt!r}, wanted a prompt with {{object}} and {{style}}")
        return prompt

    @property
    def count_objects(self) -> int:
        """Objects of the grid."""
        return self.objects if isinstance(self.objects, int) else len(self.objects)

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw the grid, judge and count.

        Returns:
            ``ua``, ``ira`` and ``cra``; tables ``own`` and ``cross`` with the members one by one, ``grid`` and
            ``ineffective``.

        Raises:
            InputError: The target is not on the grid, a prompt would stand twice, or a judge lacks a class.
        """
        kind = scene.concept.kind
        other = "object" if kind == "style" else "style"
        objects, styles = self._names(scene)
        domains = {"object": objects, "style": styles}
        target = self._target(scene, domains[kind])
        for domain, names in domains.items():
            wanted = [name for name in names if domain == "object" or self.photo_counted or name != self.photo]
            require_classes(scene.judge(domain), wanted, suite=self.name)
        plan = self._plan(objects, styles)
        pairs = draw(scene, plan, progress, stage="canvas")
        seen = {domain: look(scene.judge(domain), pairs) for domain in domains}
        before, after = (
            canvas_accuracies(
                spelled_as(getattr(seen[kind], which), domains[kind]),
                spelled_as(getattr(seen[other], which), domains[other]),
                own_wanted=[getattr(image, kind) for image in plan],
                cross_wanted=[getattr(image, other) for image in plan],
                target=target,
                target_in_cross=self.target_in_cross,
                uncounted=() if self.photo is None or self.photo_counted else (self.photo,),
            )
            for which in ("original", "edited")
        )
        asked = [image.prompt for image in plan if getattr(image, kind) == target]
        counted = Counted.of(asked, before.ua, effective_only=self.effective_only)
        figures = self._figures(scene, before, after, other=other, counted=counted)
        grid = {"objects": len(objects), "styles": len(styles), "seeds": list(self.seeds), "pictures": len(plan)}
        tables = {
            "grid": [grid],
            "own": _members(before.ira, after.ira),
            "cross": _members(before.cra, after.cra),
            "ineffective": counted.table,
        }
        warnings = [*void_reasons(seen[kind].edited), *counted.warnings]
        warnings += [] if before.ira else [f"not measured: IRA, for the grid has no other {kind}"]
        errors = self._judge_errors(scene, seen[kind], [getattr(image, kind) for image in plan], target=target)
        return SuiteResult.of(self, scene, figures, tables=tables, calibration=errors, warnings=warnings)

    def _names(self, scene: Scene) -> tuple[list[str], list[str]]:
        """Return the objects and the styles of the grid."""
        world = scene.backbone.world
        styles = list(world.styles if self.styles is None else self.styles)
        if isinstance(self.objects, int):
            # The same objects for every target, but for the last: the unedited grid is found in the cache again.
            objects = stratified(world, 0)[: self.objects]
            missing = same_name(scene.concept.target) not in {same_name(name) for name in objects}
            if scene.concept.kind == "object" and missing:
                objects[-1:] = [scene.concept.target]
        else:
            objects = list(self.objects)
        for what, names in (("objects", objects), ("styles", styles)):
            without_repetitions([same_name(name) for name in names], what=what, suite=self.name)
            if not names:
                raise InputError(f"suite {self.name}: {what}: got none; name some, for this world has none")
        without_repetitions(self.seeds, what="seeds", suite=self.name)
        if self.photo is not None and self.photo not in styles:
            raise InputError(f"suite {self.name}: photo: got {self.photo!r}, which is none of its styles; name one")
        return objects, styles

    def _target(self, scene: Scene, names: Sequence[str]) -> str:
        """Return the target in the grid's spelling."""
        wanted = scene.concept.target
        found = next((name for name in names if same_name(name) == same_name(wanted)), None)
        if found is None:
            kind = scene.concept.kind
            hint = did_you_mean(wanted, names)
            raise InputError(f"suite {self.name}: {wanted!r} is none of its {len(names)} {kind}s; name it there.{hint}")
        return found

    def _plan(self, objects: Sequence[str], styles: Sequence[str]) -> list[PlannedImage]:
        """Return the whole grid, seed by seed."""
        plan = []
        for seed in self.seeds:
            for style in styles:
                own = self.photo_prompt if style == self.photo and self.photo_prompt is not None else self.prompt
                words = style.replace("_", " ")
                plan += [
                    PlannedImage("other", own.format(object=thing.replace("_", " "), style=words), seed, thing, style)
                    for thing in objects
                ]
        return plan

    def _figures(
        self, scene: Scene, before: CanvasAccuracies, after: CanvasAccuracies, *, other: str, counted: Counted
    ) -> dict[str, Metric]:
        kind = scene.concept.kind
        own_judge, cross_judge = scene.judge(kind).name, scene.judge(other).name
        photo = self._photo_words(kind)
        figures = {}
        if (rows := counted.rows).any():
            words = f"UnlearnCanvas UA: 1 - accuracy on the target's pictures over all {other}s and seeds"
            protocol = words + counted.words
            figures["ua"] = scene.metric(before.ua[rows], after.ua[rows], judge=own_judge, protocol=protocol)
        if before.ira:
            protocol = f"UnlearnCanvas IRA: mean accuracy of the {len(before.ira)} other {kind}s{photo[0]}"
            figures["ira"] = scene.metric(
                _values(before.ira), _values(after.ira), judge=own_judge, protocol=protocol, unit="concepts"
            )
        if before.cra:
            own = "with" if self.target_in_cross else "without"
            members = f"{len(before.cra)} {other}s{photo[1]}, {own} the target's pictures"
            protocol = f"UnlearnCanvas CRA: mean accuracy of the {members}"
            figures["cra"] = scene.metric(
                _values(before.cra), _values(after.cra), judge=cross_judge, protocol=protocol, unit="concepts"
            )
        return figures

    def _judge_errors(self, scene: Scene, seen: Seen, wanted: Sequence[str], *, target: str) -> Calibration:
        labels = list(zip(spelled_as(seen.original, wanted), wanted, strict=True))
        shown = [label for label, name in labels if name == target]
        clean = [label for label, name in labels if name != target]
        judge, level = scene.judge(scene.concept.kind).name, scene.settings.level
        return calibrate_labels(target, judge=judge, shown=shown, clean=clean, level=level)

    def _photo_words(self, kind: str) -> tuple[str, str]:
        """Say in the protocols of IRA and CRA whether the theme that is no style counts."""
        if self.photo is None:
            return "", ""
        words = f", {self.photo} {'counted' if self.photo_counted else 'not counted'}"
        return (words, "") if kind == "style" else ("", words)


def _values(accuracies: dict[str, float]) -> np.ndarray:
    return np.array(list(accuracies.values()))


def _members(before: dict[str, float], after: dict[str, float]) -> list[dict[str, Any]]:
    """Return members of a domain as a table's rows."""
    return [{"concept": name, "unedited": value, "edited": after[name]} for name, value in before.items()]
