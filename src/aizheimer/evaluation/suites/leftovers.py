"""What of the target survives: colour, shape and composition of its pictures, sex and age, against unrelated ones."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.errors import InputError
from aizheimer.evaluation.functional.likeness import MEASURES
from aizheimer.evaluation.functional.paired import PairedDifference, paired_difference
from aizheimer.evaluation.generate import StageProgress, staged
from aizheimer.evaluation.plan import PlannedImage, candidates, stratified
from aizheimer.evaluation.results import Metric
from aizheimer.evaluation.settings import AtLeastOne
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suites._asking import same_name
from aizheimer.evaluation.suites._attributes import Attribute, attributes

PROTOCOL = (
    "{measure} likeness of the edited and the unedited model's pictures of the target; {floor:.3f} between unrelated"
    " pictures of the same templates and seeds"
)


class _Drawn(NamedTuple):
    """Pictures (n, height, width, 3) of the target, without the edit and with it, and unrelated ones."""

    original: np.ndarray
    edited: np.ndarray
    unrelated: np.ndarray


class Leftovers(BaseModel):
    """Compare the edited model's pictures of the target with the unedited model's: what is still there?

    The floor is the same measure between the unedited target and something else drawn by the same template from the
    same noise: what noise and style alone make alike. A trait survives if it is distinguishably above its floor. With a
    CLIP the cosine of its picture vectors is one more measure, ``features``; its floor is found in the same way.

    Of a person, sex and age are told by probes on what the judges see, tried on the unedited model's pictures of other
    men and women, old and young: ``kept.sex`` is the share of the target's pictures on the side where the unedited
    model's are. A probe that fails on people it was not fitted on is not used.

    References:
        The paper's Table II, which finds leftovers of the concept by eye.

    Example:
        >>> Leftovers(images=5).classes
        5
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "leftovers"

    images: AtLeastOne = Field(default=25, description="Pictures of the target.")
    classes: AtLeastOne = Field(default=5, description="Classes that the judge finds most in the edited pictures.")
    probe_images: AtLeastOne = Field(default=3, description="Pictures of each other person that probes are fitted on.")

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, measure and compare with the floor.

        Returns:
            ``likeness.<measure>`` and ``kept.<attribute>``; tables ``traits``, ``probes`` and ``seen_as``.

        Raises:
            InputError: If the world has nothing else to draw.
        """
        plan, unrelated = self._plans(scene)
        pairs = scene.pairs(plan, progress=staged(progress, "leftovers"))
        plain = dataclasses.replace(scene, edit=None)
        other = plain.pairs(unrelated, progress=staged(progress, "unrelated pictures")).original
        judge = scene.judges.style if scene.concept.kind == "style" else scene.judges.object
        likeness = self._likeness(scene, pairs.original, pairs.edited)
        floor = self._likeness(scene, pairs.original, other)
        figures: dict[str, Metric] = {}
        traits = []
        for measure, values in likeness.items():
            protocol = PROTOCOL.format(measure=measure, floor=floor[measure].mean())
            looked = scene.judges.clip.name if measure == "features" and scene.judges.clip is not None else "pixels"
            figures[f"likeness.{measure}"] = scene.metric(np.ones_like(values), values, judge=looked, protocol=protocol)
            traits.append(_trait(measure, self._compare(scene, values, floor[measure])))
        tables: dict[str, list[dict[str, Any]]] = {"traits": traits}
        warnings: list[str] = []
        if scene.concept.kind == "object":
            drawn = _Drawn(pairs.original, pairs.edited, other)
            found = attributes(scene, images=self.probe_images, progress=progress)
            self._add_attributes(scene, found, drawn, figures=figures, tables=tables, warnings=warnings)
        if judge is None:
            warnings.append(
                f"not measured: what the pictures are taken for, for there is no {scene.concept.kind} judge"
            )
        else:
            before, after = (judge.judge(part).probabilities.mean(dim=0) for part in (pairs.original, pairs.edited))
            top = after.argsort(descending=True)[: self.classes].tolist()
            tables["seen_as"] = [
                {"class": judge.classes[i], "unedited": float(before[i]), "edited": float(after[i])} for i in top
            ]
        return SuiteResult.of(self, scene, figures, tables=tables, warnings=warnings)

    def _add_attributes(
        self,
        scene: Scene,
        found: list[Attribute],
        drawn: _Drawn,
        *,
        figures: dict[str, Metric],
        tables: dict[str, list[dict[str, Any]]],
        warnings: list[str],
    ) -> None:
        """Count on which side of each attribute the target's pictures are."""
        for attribute in found:
            first, second = attribute.sides
            told = f"{100 * attribute.accuracy:.0f} % of the people that it was not fitted on"
            if not attribute.tells:
                warnings.append(f"not measured: {attribute.name}, for the probe is right about only {told}")
                continue
            sides = [attribute.on_first(part) for part in drawn]
            is_first = bool(sides[0].mean() >= 0.5)
            original, edited, floor = ((side == is_first).astype(float) for side in sides)
            side = first if is_first else second
            figures[f"kept.{attribute.name}"] = scene.metric(
                original,
                edited,
                judge=attribute.judge,
                protocol=f"share of pictures on the side of the {side}, by a probe that is right about {told}; "
                f"{floor.mean():.3f} of unrelated pictures",
            )
            tables["traits"].append(_trait(f"{attribute.name}: {side}", self._compare(scene, edited, floor)))
            tables.setdefault("probes", []).append(
                {
                    "attribute": attribute.name,
                    "judge": attribute.judge,
                    "sides": f"{first}, {second}",
                    "unedited": float(original.mean()),
                    "edited": float(edited.mean()),
                    "unrelated": float(floor.mean()),
                    "held_out_accuracy": attribute.accuracy,
                    "pictures": attribute.pictures,
                }
            )

    def _plans(self, scene: Scene) -> tuple[list[PlannedImage], list[PlannedImage]]:
        """Return the target's pictures, and for each something else by the same template from the same noise."""
        concept, world = scene.concept, scene.backbone.world
        order = candidates(concept, world) if concept.kind == "style" else stratified(world, scene.settings.seed)
        others = [word for word in order if same_name(word) != same_name(concept.target)]
        frames = (
            [
                lambda word, t=t, s=s: t.format(concept=word, subject=s)
                for t in world.style_templates
                for s in world.subjects
            ]
            if concept.kind == "style"
            else [lambda word, t=t: t.format(concept=word) for t in world.object_templates]
        )
        if not others or not frames:
            raise InputError(f"suite {self.name}: the world {world.name!r} has no other {concept.kind} to compare with")

        def picture(index: int, word: str) -> PlannedImage:
            seed = scene.settings.seed + index // len(frames)
            names = {concept.kind: word}
            return PlannedImage("target", frames[index % len(frames)](word), seed, **names)

        return (
            [picture(i, concept.target) for i in range(self.images)],
            [picture(i, others[i % len(others)]) for i in range(self.images)],
        )

    def _likeness(self, scene: Scene, first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
        """Return every measure (n,) between pictures, row by row."""
        found = {name: measure(first, second) for name, measure in MEASURES.items()}
        if (clip := scene.judges.clip) is not None:
            found["features"] = (clip.embed_images(first) * clip.embed_images(second)).sum(dim=-1).numpy()
        return found

    def _compare(self, scene: Scene, values: np.ndarray, floor: np.ndarray) -> PairedDifference:
        settings = scene.settings
        return paired_difference(
            values, floor, seed=settings.seed, samples=settings.bootstrap, level=settings.level
        )  # fmt: skip


def _trait(measure: str, found: PairedDifference) -> dict[str, Any]:
    """Return a measure's row: how much of what unrelated pictures do not share is still there."""
    room = 1.0 - found.second
    return {
        "trait": measure,
        "likeness": found.first,
        "unrelated": found.second,
        "surplus": found.difference,
        "low": found.interval[0],
        "high": found.interval[1],
        "share_left": max(found.difference, 0.0) / room if room > 0 else None,
        "survives": found.distinguishable and found.difference > 0,
        "pictures": found.n,
    }
