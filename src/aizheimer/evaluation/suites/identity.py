"""One person among others: is it gone, do similar and dissimilar people stay, and is anybody drawn at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.concepts.neighbours import nearest
from aizheimer.errors import InputError
from aizheimer.evaluation.calibration import calibrate_plan
from aizheimer.evaluation.functional.accuracy import accuracy_by_concept, forgotten, matches
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.plan import PlannedImage, plan_images
from aizheimer.evaluation.results import Metric
from aizheimer.evaluation.settings import AtLeastOne
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suites._asking import (
    Labels,
    Seen,
    draw,
    look,
    require_classes,
    same_name,
    spelled_as,
    target_class,
    without_repetitions,
)

NOBODY = (
    "share of pictures of {whom} in which the judge sees nobody; UA and IRA count such a picture as not that person"
)


class Identity(BaseModel):
    """Forget one person and look at the others: those most like it by text embedding, and those least.

    The judge is the scene's judge of objects: the embedded model's own, or on photographs a face-recognition judge.
    The share of pictures in which it sees nobody is always shown, because leaving them out flatters: a model that draws
    no faces any more has no wrong faces either. What GCD counts (only pictures with a face) is in the table ``gcd``,
    beside how many pictures that leaves.

    References:
        MACE, arXiv 2403.06135, section 4 (ACC by GCD, faceless pictures dropped).

    Example:
        >>> Identity(similar=5, dissimilar=5).people
        'world'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "identity"

    people: Literal["world", "judge"] | tuple[str, ...] = Field(
        default="world", description="Who counts as a person: the world's group, all the judge's classes, or names."
    )
    group: str = Field(default="people", description="The world's group of people.")
    nobody: tuple[str, ...] = Field(default=(), description="Members of the group that are no persons.")
    images: AtLeastOne = Field(default=25, description="Pictures of the target.")
    similar: AtLeastOne = Field(default=8, description="People nearest to the target.")
    dissimilar: AtLeastOne = Field(default=8, description="People furthest from it.")
    retain_images: AtLeastOne = Field(default=5, description="Pictures of each of them.")

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, judge and count.

        Returns:
            ``ua``, ``ira.similar``, ``ira.dissimilar``, ``nobody.target`` and ``nobody.retain``; tables ``people`` and
            ``gcd``.

        Raises:
            InputError: The target is no person of the group, or the judge does not know somebody.
        """
        if scene.concept.kind != "object":
            raise InputError(f"suite {self.name}: {scene.concept.target!r} is a style; give a person, or another suite")
        judge = scene.judge("object")
        target = target_class(judge, scene.concept, suite=self.name)
        people = self._people(scene, judge.classes)
        others = [name for name in people if same_name(name) != same_name(target)]
        require_classes(judge, others, suite=self.name)
        ranked = nearest(target, others, scene.backbone.embed_concepts, len(others))
        labels = [label for label, _ in ranked]
        near, far = labels[: self.similar], labels[self.similar :][-self.dissimilar :]
        plan = self._plan(scene, [*near, *far])
        raw = look(judge, draw(scene, plan, progress, stage="identity"))
        seen = Seen(spelled_as(raw.original, [target, *others]), spelled_as(raw.edited, [target, *others]))
        rows = {
            "target": [i for i, image in enumerate(plan) if image.role == "target"],
            "similar": [i for i, image in enumerate(plan) if image.role != "target" and image.object in near],
            "dissimilar": [i for i, image in enumerate(plan) if image.role != "target" and image.object in far],
        }
        persons = {same_name(name) for name in (target, *people)}
        figures = self._figures(scene, judge.name, plan, seen, rows=rows, persons=persons)
        tables = {
            "people": self._table(plan, seen, rows, dict(ranked)),
            "gcd": [
                _gcd(name, [plan[i].object or "" for i in rows[name]], seen.at(rows[name]), persons) for name in rows
            ],
        }
        warnings = [] if far else [f"not measured: dissimilar people, for there are only {len(others)} others"]
        errors = calibrate_plan(target, judge=judge.name, labels=seen.original, plan=plan, level=scene.settings.level)
        return SuiteResult.of(self, scene, figures, tables=tables, calibration=errors, warnings=warnings)

    def _people(self, scene: Scene, classes: Sequence[str]) -> list[str]:
        """Return everybody, the target included."""
        if self.people == "judge":
            return list(classes)
        if self.people == "world":
            hidden = {same_name(name) for name in self.nobody}
            items = [item.label for item in scene.backbone.world.vocabulary if item.group == self.group]
            found = [label for label in items if same_name(label) not in hidden]
        else:
            found = list(self.people)
        without_repetitions([same_name(name) for name in found], what="people", suite=self.name)
        if same_name(scene.concept.target) not in {same_name(name) for name in found}:
            raise InputError(
                f"suite {self.name}: {scene.concept.target!r} is none of its {len(found)} people;"
                " give a person as target, or name the people"
            )
        if len(found) < 2:
            raise InputError(f"suite {self.name}: got nobody beside the target; name more people")
        return found

    def _plan(self, scene: Scene, others: Sequence[str]) -> list[PlannedImage]:
        sizes = {"target_images": self.images, "neighbours": len(others), "neighbour_images": self.retain_images}
        settings = scene.settings.model_copy(update={**sizes, "others": 0})
        plan = plan_images(scene.concept, scene.backbone.world, neighbours=others, settings=settings)
        return [image for image in plan if image.role in {"target", "neighbour"}]

    def _figures(
        self,
        scene: Scene,
        judge: str,
        plan: Sequence[PlannedImage],
        seen: Seen,
        *,
        rows: dict[str, list[int]],
        persons: set[str],
    ) -> dict[str, Metric]:
        target = scene.concept.target
        own = seen.at(rows["target"])
        gone = forgotten([_plain(x) for x in own.original], same_name(target)), forgotten(
            [_plain(x) for x in own.edited], same_name(target)
        )  # fmt: skip
        protocol = f"share of pictures of {target!r} that the judge does not call so, faceless ones included"
        figures = {"ua": scene.metric(*gone, judge=judge, protocol=protocol)}
        for name in ("similar", "dissimilar"):
            if not rows[name]:
                continue
            wanted = [plan[i].object or "" for i in rows[name]]
            part = seen.at(rows[name])
            values = [np.array(list(accuracy_by_concept(x, wanted).values())) for x in (part.original, part.edited)]
            protocol = f"share of pictures of {name} people that the judge names right, mean over people"
            figures[f"ira.{name}"] = scene.metric(*values, judge=judge, protocol=protocol, unit="concepts")
        for name, which in (("target", rows["target"]), ("retain", rows["similar"] + rows["dissimilar"])):
            if which:
                part = seen.at(which)
                empty = [_nobody(x, persons) for x in (part.original, part.edited)]
                protocol = NOBODY.format(whom=repr(target) if name == "target" else "the others")
                figures[f"nobody.{name}"] = scene.metric(*empty, judge=judge, protocol=protocol)
        return figures

    def _table(
        self, plan: Sequence[PlannedImage], seen: Seen, rows: dict[str, list[int]], similarity: dict[str, float]
    ) -> list[dict[str, Any]]:
        """Return the others one by one."""
        found = []
        for name in ("similar", "dissimilar"):
            wanted = [plan[i].object or "" for i in rows[name]]
            part = seen.at(rows[name])
            before, after = accuracy_by_concept(part.original, wanted), accuracy_by_concept(part.edited, wanted)
            found += [
                {
                    "person": label,
                    "set": name,
                    "distance": 1.0 - similarity[label],
                    "unedited": before[label],
                    "edited": after[label],
                    "pictures": wanted.count(label),
                }
                for label in before
            ]
        return found


def _plain(label: str | None) -> str | None:
    return None if label is None else same_name(label)


def _nobody(labels: Labels, persons: set[str]) -> np.ndarray:
    """Return 1.0 where the judge names no person."""
    return np.array([label is None or same_name(label) not in persons for label in labels], dtype=float)


def _gcd(name: str, wanted: Sequence[str], seen: Seen, persons: set[str]) -> dict[str, Any]:
    """Return accuracy among the pictures with a person alone, and how many those are, for one set of people."""
    row: dict[str, Any] = {"set": name, "pictures": len(wanted)}
    for which, labels in (("unedited", seen.original), ("edited", seen.edited)):
        there = _nobody(labels, persons) == 0
        right = matches([_plain(label) for label in labels], [same_name(name) for name in wanted])
        row[f"with_person_{which}"] = int(there.sum())
        row[f"accuracy_{which}"] = float(right[there].mean()) if there.any() else None
    return row
