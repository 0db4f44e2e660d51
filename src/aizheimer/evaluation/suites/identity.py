"""One person among others: is it gone, do similar and dissimilar people stay, and is anybody drawn at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.concepts.neighbours import nearest
from aizheimer.detectors import NO_PICTURE
from aizheimer.detectors.base import Judge, without_void
from aizheimer.detectors.identity import FaceJudge
from aizheimer.errors import InputError
from aizheimer.evaluation.calibration import calibrate_plan
from aizheimer.evaluation.evaluate import ImagePairs
from aizheimer.evaluation.flags import void_reasons
from aizheimer.evaluation.functional.accuracy import accuracy_by_concept, forgotten
from aizheimer.evaluation.functional.identity import IdentityAccuracy, harmonic_celebrity, identity_accuracy
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.plan import PlannedImage, plan_images
from aizheimer.evaluation.results import Metric
from aizheimer.evaluation.settings import AtLeastOne
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suites._asking import (
    Counted,
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
    "share of pictures of {whom} in which the judge sees {what}; UA and IRA count such a picture as not that person"
)


Empty: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Bool (pictures,) of both models: where nobody is."""


class Identity(BaseModel):
    """Forget one person and look at the others: those most like it by text embedding, and those least.

    The judge is the scene's judge of objects: the embedded model's own, or on photographs a face-recognition judge.
    The share of pictures in which it sees nobody is always shown, because leaving them out flatters: a model that draws
    no faces any more has no wrong faces either. What GCD counts (only pictures with a face) is in the table ``gcd``,
    beside how many pictures that leaves, and MACE's harmonic mean of it in ``harmonic``.

    Nobody is a picture without a face, if the judge looks for faces (`aizheimer.detectors.identity.FaceJudge`); else
    one that it calls none of these, or a thing that the world knows and does not list among its people. Whoever else it
    names is a person: a wrong one, if it was not asked for.

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

    effective_only: bool = Field(
        default=False, description="Leave the target's prompts out of UA on which the unedited model does not show it."
    )

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, judge and count.

        Returns:
            ``ua``, ``ira.similar``, ``ira.dissimilar``, ``nobody.target`` and ``nobody.retain``; tables ``people``,
            ``gcd``, ``harmonic`` and ``ineffective``.

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
        pairs = draw(scene, plan, progress, stage="identity")
        seen, empty = self._look(scene, judge, pairs, people=[target, *others])
        rows = {
            "target": [i for i, image in enumerate(plan) if image.role == "target"],
            "similar": [i for i, image in enumerate(plan) if image.role != "target" and image.object in near],
            "dissimilar": [i for i, image in enumerate(plan) if image.role != "target" and image.object in far],
        }
        wanted = [image.object or "" for image in plan]
        tables = {
            "people": self._table(plan, seen, rows, dict(ranked)),
            "gcd": [_gcd(name, _counted(wanted, seen, empty, rows[name])) for name in rows if rows[name]],
            "harmonic": [_harmonic(wanted, seen, empty, rows)],
        }
        own = seen.at(rows["target"])
        gone = _gone(own.original, target), _gone(own.edited, target)
        counted = Counted.of([plan[i].prompt for i in rows["target"]], gone[0], effective_only=self.effective_only)
        tables["ineffective"] = counted.table
        figures = self._figures(scene, judge, plan, seen, rows=rows, empty=empty, gone=gone, counted=counted)
        warnings = [*void_reasons(seen.edited), *counted.warnings]
        warnings += [] if far else [f"not measured: dissimilar people, for there are only {len(others)} others"]
        errors = calibrate_plan(target, judge=judge.name, labels=seen.original, plan=plan, level=scene.settings.level)
        return SuiteResult.of(self, scene, figures, tables=tables, calibration=errors, warnings=warnings)

    def _look(self, scene: Scene, judge: Judge, pairs: ImagePairs, *, people: Sequence[str]) -> tuple[Seen, Empty]:
        """Return who is seen, in the spelling of ``people``, and where nobody is."""
        if isinstance(judge, FaceJudge):
            faces = judge.look(pairs.original), judge.look(pairs.edited)
            answers = without_void(faces[0].seen, pairs.original), without_void(faces[1].seen, pairs.edited)
            raw = Seen(*(seen.labels for seen in answers))
            empty = ~faces[0].has_face, ~faces[1].has_face
        else:
            raw = look(judge, pairs)
            things = (self._things(scene) | {NO_PICTURE}) - {same_name(name) for name in people}
            empty = _nobody(raw.original, things), _nobody(raw.edited, things)
        return Seen(spelled_as(raw.original, people), spelled_as(raw.edited, people)), empty

    def _things(self, scene: Scene) -> set[str]:
        """Return what the world knows that is no person."""
        if self.people == "judge":
            return set()
        found = {same_name(i.label) for i in scene.backbone.world.vocabulary if i.group != self.group}
        return found | {same_name(name) for name in self.nobody}

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
        looking: Judge,
        plan: Sequence[PlannedImage],
        seen: Seen,
        *,
        rows: dict[str, list[int]],
        empty: Empty,
        gone: tuple[np.ndarray, np.ndarray],
        counted: Counted,
    ) -> dict[str, Metric]:
        target, judge = scene.concept.target, looking.name
        figures = {}
        if counted.rows.any():
            words = f"share of pictures of {target!r} that the judge does not call so, faceless ones included"
            values = [side[counted.rows] for side in gone]
            figures["ua"] = scene.metric(*values, judge=judge, protocol=words + counted.words)
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
                what = "no face" if isinstance(looking, FaceJudge) else "nobody"
                protocol = NOBODY.format(whom=repr(target) if name == "target" else "the others", what=what)
                share = scene.metric(empty[0][which], empty[1][which], judge=judge, protocol=protocol)
                figures[f"nobody.{name}"] = share
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


def _gone(labels: Labels, target: str) -> np.ndarray:
    """Return 1.0 (n,) where the judge does not see the target, in whichever spelling."""
    return forgotten([_plain(label) for label in labels], same_name(target))


def _plain(label: str | None) -> str | None:
    return None if label is None else same_name(label)


def _nobody(labels: Labels, things: set[str]) -> np.ndarray:
    """Return bool (n,): where the judge names nothing, or a thing."""
    return np.array([label is None or same_name(label) in things for label in labels], dtype=bool)


def _counted(wanted: Sequence[str], seen: Seen, empty: Empty, rows: Sequence[int]) -> list[IdentityAccuracy]:
    """Return how often some pictures show whom they should, without the edit and with it."""
    names = [same_name(wanted[i]) for i in rows]
    part = seen.at(rows)
    return [
        identity_accuracy([_plain(label) for label in labels], names, has_face=~nobody[rows])
        for labels, nobody in zip((part.original, part.edited), empty, strict=True)
    ]


def _gcd(name: str, counted: Sequence[IdentityAccuracy]) -> dict[str, Any]:
    """Return accuracy among the pictures with a person alone, and how many those are, for one set of people."""
    row: dict[str, Any] = {"set": name, "pictures": counted[0].n}
    for which, found in zip(("unedited", "edited"), counted, strict=True):
        row[f"with_person_{which}"] = round(found.n * (1 - found.no_face))
        row[f"accuracy_{which}"] = found.with_face
    return row


def _harmonic(wanted: Sequence[str], seen: Seen, empty: Empty, rows: dict[str, list[int]]) -> dict[str, Any]:
    """Return MACE's harmonic mean of what is gone and what is kept, None where no picture shows a person."""
    erased = _counted(wanted, seen, empty, rows["target"])
    kept = _counted(wanted, seen, empty, rows["similar"] + rows["dissimilar"])
    return {
        which: None if e.with_face is None or k.with_face is None else harmonic_celebrity(e.with_face, k.with_face)
        for which, e, k in zip(("unedited", "edited"), erased, kept, strict=True)
    }
