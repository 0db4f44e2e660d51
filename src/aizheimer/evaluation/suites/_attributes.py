"""Sex and age of the people in pictures, told by probes on what the judges see: what of a person survives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from aizheimer.concepts.groups import Groups, ages, people_pairs, without
from aizheimer.detectors.base import find_class
from aizheimer.evaluation.functional.probe import fit_probe, held_out_accuracy
from aizheimer.evaluation.generate import StageProgress, jobs_in_turn, staged
from aizheimer.evaluation.plan import PlannedImage
from aizheimer.evaluation.suite import Scene
from aizheimer.evaluation.suites._asking import same_name

LEAST_MEMBERS = 2
"""On each side: leaving one out must leave another."""

LEAST_ACCURACY = 0.75
"""A probe that is wrong about more than a quarter of the people that it was not fitted on tells nothing."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A probe for one trait of people.

    Args:
        name: "sex" or "age".
        sides: What its two sides are called.
        judge: On whose features.
        on_first: Says of pictures, uint8 (n, height, width, 3), which are on the first side, bool (n,).
        accuracy: On people that it was not fitted on, in [0, 1].
        pictures: How many it was tried on.
    """

    name: str
    sides: tuple[str, str]
    judge: str
    on_first: Callable[[np.ndarray], np.ndarray]
    accuracy: float
    pictures: int

    @property
    def tells(self) -> bool:
        """Whether it may be believed."""
        return self.accuracy >= LEAST_ACCURACY


def groupings(scene: Scene) -> Mapping[str, Groups]:
    """Return the traits of which the target's own group has two members or more on either side, the target left out.

    A target outside the world's vocabulary, or one whose group has no such people, has no such traits.
    """
    items = scene.backbone.world.vocabulary
    target = same_name(scene.concept.target)
    own = next((item.group for item in items if same_name(item.label) == target), None)
    labels = [item.label for item in items if own is not None and item.group == own]
    found = {"sex": people_pairs(labels), "age": ages(labels)}
    left = {name: without(groups, scene.concept.target) for name, groups in found.items()}
    return {
        name: groups
        for name, groups in left.items()
        if len(groups) == 2 and all(len(members) >= LEAST_MEMBERS for members in groups.values())
    }


def attributes(scene: Scene, *, images: int, progress: StageProgress | None) -> list[Attribute]:
    """Return the probes that this scene allows, of each trait the better one, tried on what the unedited model draws.

    One adds up what the object judge gives the people of either side, the other is a linear probe on the CLIP's picture
    vectors. Which is better is told on people that were left out: of the sums, and of the fit.

    Args:
        scene: With an object judge, a CLIP, or both.
        images: Pictures of each person.
        progress: Told how many are drawn.
    """
    found = []
    plain = dataclasses.replace(scene, edit=None)
    for name, groups in groupings(scene).items():
        people = [
            _Person(side == next(iter(groups)), who, label)
            for side, own in groups.items()
            for who, label in own.items()
        ]
        plan = _plan(scene, [person.label for person in people], images)
        drawn = plain.pairs(plan, progress=staged(progress, f"people, for {name}")).original
        first, second = groups
        shown = [person for person in people for _ in range(images)]
        probes = [
            Attribute(
                name=name, sides=(first, second), judge=judge, on_first=probe, accuracy=accuracy, pictures=len(plan)
            )
            for judge, probe, accuracy in _probes(scene, people, shown, drawn)
        ]
        found.extend(sorted(probes, key=lambda attribute: -attribute.accuracy)[:1])
    return found


class _Person(NamedTuple):
    is_first: bool
    who: str
    label: str


_Tried: TypeAlias = tuple[str, Callable[[np.ndarray], np.ndarray], float]


def _probes(
    scene: Scene, people: Sequence[_Person], shown: Sequence[_Person], drawn: np.ndarray
) -> Iterator[_Tried]:  # fmt: skip
    """Try both probes on pictures (n, height, width, 3) of the people shown in them."""
    is_first = np.array([person.is_first for person in shown])
    judge, clip = scene.judges.object, scene.judges.clip
    if judge is not None and all(find_class(judge, person.label) is not None for person in people):
        places = {person: judge.classes.index(find_class(judge, person.label) or "") for person in people}

        def sums(probabilities: np.ndarray, without: str | None = None) -> np.ndarray:
            first, second = (
                [place for person, place in places.items() if person.is_first is side and person.who != without]
                for side in (True, False)
            )
            return probabilities[:, first].sum(axis=1) > probabilities[:, second].sum(axis=1)

        seen = judge.judge(drawn).probabilities.numpy()
        right = np.array([sums(seen[[i]], who)[0] for i, (_, who, _) in enumerate(shown)]) == is_first
        accuracy = float((right[is_first].mean() + right[~is_first].mean()) / 2)
        yield judge.name, lambda images: sums(judge.judge(images).probabilities.numpy()), accuracy
    if clip is not None:
        features = clip.embed_images(drawn).numpy()
        probe = fit_probe(features, is_first)
        accuracy = held_out_accuracy(features, is_first, [person.who for person in shown])
        yield clip.name, lambda images: probe.on_first(clip.embed_images(images).numpy()), accuracy


def _plan(scene: Scene, labels: list[str], images: int) -> list[PlannedImage]:
    templates = scene.backbone.world.object_templates
    return [
        PlannedImage("other", job.prompt, job.seed, object=label)
        for label in labels
        for job in jobs_in_turn(
            [template.format(concept=label) for template in templates], count=images, seed=scene.settings.seed
        )
    ]
