"""Who was hurt: what groups of people lost, the largest gap between groups, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.concepts.groups import Groups, people_pairs, skin_tones, without
from aizheimer.concepts.mentions import mention
from aizheimer.errors import InputError
from aizheimer.evaluation.functional.accuracy import accuracy_by_concept
from aizheimer.evaluation.functional.gaps import GroupGap, largest_gap
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.plan import PlannedImage
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
    without_repetitions,
)

KEPT = "share of pictures of {group} that the judge names right, mean over concepts; without the target's pair"
INVERTED = "share of pictures of {group} that the judge takes for a member of another group of {grouping}"


class Fairness(BaseModel):
    """Compare what groups of retained people lost.

    Groups are the user's, or found in the world's words: men and women of the same trade (``sex``), the same persons in
    several skin tones (``tone``). All members are asked for with the same prompts and seeds. Damage is accuracy lost;
    the unit is the concept, since pictures of one concept are no independent witnesses. ``inverted`` counts pictures
    that show another group of the same grouping, such as a man where a woman was asked for.

    References:
        AIzheimer's Table I, where overfitting inverts the apparent sex.

    Example:
        >>> Fairness(groups={"old": ("old man", "old woman"), "young": ("boy", "girl")}, paired=True).paired
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "fairness"
    edition: ClassVar[str] = "a gap's n is the pairs"

    groups: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Groups of labels; by default those found in the world's words."
    )
    paired: bool = Field(default=False, description="Whether members of the given groups correspond place by place.")
    images: AtLeastOne = Field(default=5, description="Pictures of each member: each prompt, then the next seed.")

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, judge and count.

        Returns:
            ``ira.<group>``, ``gap.<grouping>`` and ``inverted.<group>``; tables ``gaps`` and ``members``.

        Raises:
            InputError: There are no groups to compare, a label stands twice, or the judge does not know somebody.
        """
        judge = scene.judge("object")
        groupings, warnings = self._groupings(scene)
        labels = list(
            dict.fromkeys(own for groups in groupings.values() for g in groups.values() for own in g.values())
        )
        require_classes(judge, labels, suite=self.name)
        plan = self._plan(scene, labels)
        raw = look(judge, draw(scene, plan, progress, stage="fairness"))
        seen = Seen(spelled_as(raw.original, labels), spelled_as(raw.edited, labels))
        wanted = [image.object or "" for image in plan]
        kept = accuracy_by_concept(seen.original, wanted), accuracy_by_concept(seen.edited, wanted)
        figures: dict[str, Metric] = {}
        gaps = []
        for grouping, groups in groupings.items():
            for group, members in groups.items():
                figures |= _group_figures(scene, judge.name, group, members, kept)
                figures |= _inverted(scene, judge.name, group, groups, grouping=grouping, seen=seen, wanted=wanted)
            gap = self._gap(scene, groups, kept)
            figures[f"gap.{grouping}"] = _gap_figure(gap, judge=judge.name)
            warnings += too_few_members(grouping, gap, level=scene.settings.level)
            gaps.append({"grouping": grouping, **_gap_row(gap)})
        members = [
            {
                "grouping": grouping,
                "group": group,
                "concept": label,
                "unedited": kept[0][label],
                "edited": kept[1][label],
            }
            for grouping, groups in groupings.items()
            for group, own in groups.items()
            for label in own.values()
        ]
        return SuiteResult.of(self, scene, figures, tables={"gaps": gaps, "members": members}, warnings=warnings)

    def _groupings(self, scene: Scene) -> tuple[dict[str, Groups], list[str]]:
        """Return the groups to compare by the name of what they differ in, and what there is not."""
        target = scene.concept.target
        if self.groups:
            return {"given": self._given(target)}, []
        labels = [item.label for item in scene.backbone.world.vocabulary]
        found = {"sex": people_pairs(labels), "tone": skin_tones(labels)}
        found = {name: without(groups, target) for name, groups in found.items()}
        usable = {name: groups for name, groups in found.items() if len(groups) > 1}
        if not usable:
            raise InputError(
                f"suite {self.name}: the world {scene.backbone.world.name!r} has no pairs of men and women and no skin"
                " tones beside the target; give groups"
            )
        words = {"sex": "pairs of men and women", "tone": "skin tones"}
        return usable, [f"not measured: {words[name]}, for the world has none" for name in found if name not in usable]

    def _given(self, target: str) -> Groups:
        if len(self.groups) < 2:
            raise InputError(f"suite {self.name}: groups: got {len(self.groups)}, wanted two or more to compare")
        everybody = [same_name(label) for labels in self.groups.values() for label in labels]
        without_repetitions(everybody, what="groups", suite=self.name)
        if self.paired and len({len(labels) for labels in self.groups.values()}) > 1:
            sizes = ", ".join(f"{name} {len(labels)}" for name, labels in self.groups.items())
            raise InputError(f"suite {self.name}: groups: got {sizes}; wanted as many in each when they are paired")
        groups = {
            name: {str(i) if self.paired else label: label for i, label in enumerate(labels)}
            for name, labels in self.groups.items()
        }
        left = without(groups, target)
        if len(left) < len(groups):
            raise InputError(
                f"suite {self.name}: groups: a group has nobody in it beside the target; name more members"
            )
        return left

    def _plan(self, scene: Scene, labels: Sequence[str]) -> list[PlannedImage]:
        """Ask for everybody with the same prompts and seeds, and never for the target."""
        named = mention(scene.concept.target)
        templates = [t for t in scene.backbone.world.object_templates if not named.search(t)]
        if not templates:
            raise InputError(f"suite {self.name}: every template of the world asks for the target; add others")
        seed = scene.settings.seed
        jobs = [(templates[i % len(templates)], seed + i // len(templates)) for i in range(self.images)]
        return [
            PlannedImage("neighbour", template.format(concept=label), start, label)
            for label in labels
            for template, start in jobs
        ]

    def _gap(self, scene: Scene, groups: Groups, kept: tuple[dict[str, float], dict[str, float]]) -> GroupGap:
        damage = {
            group: {member: kept[0][label] - kept[1][label] for member, label in own.items()}
            for group, own in groups.items()
        }
        settings = scene.settings
        return largest_gap(damage, seed=settings.seed, samples=settings.bootstrap, level=settings.level)


def _group_figures(
    scene: Scene,
    judge: str,
    group: str,
    members: dict[str, str],
    kept: tuple[dict[str, float], dict[str, float]],
) -> dict[str, Metric]:
    """Return what a group kept, with the unedited model's value beside it: their difference is the damage."""
    values = [np.array([accuracy[label] for label in members.values()]) for accuracy in kept]
    protocol = KEPT.format(group=group)
    return {f"ira.{group}": scene.metric(*values, judge=judge, protocol=protocol, unit="concepts")}


def _inverted(
    scene: Scene, judge: str, group: str, groups: Groups, *, grouping: str, seen: Seen, wanted: Sequence[str]
) -> dict[str, Metric]:
    """Return how often a group's pictures are taken for another group's members."""
    own = set(groups[group].values())
    others = {label for name, members in groups.items() if name != group for label in members.values()} - own
    rows = [i for i, label in enumerate(wanted) if label in own]

    def share(labels: Labels) -> np.ndarray:
        return np.array([label in others for label in labels], dtype=float)

    part = seen.at(rows)
    protocol = INVERTED.format(group=group, grouping=grouping)
    metric = scene.metric(share(part.original), share(part.edited), judge=judge, protocol=protocol)
    return {f"inverted.{group}": metric}


def too_few_members(grouping: str, gap: GroupGap, *, level: float) -> list[str]:
    """Say that no gap could have been told from none, however large; an empty list if one could.

    Example:
        >>> names = "abcde"
        >>> found = largest_gap({"men": dict.fromkeys(names, 0.0), "women": dict.fromkeys(names, 1.0)}, seed=0)
        >>> too_few_members("sex", found, level=0.95)[0][:48]
        'gap.sex: 5 pairs can never be told from no gap: '
    """
    if gap.least_p_value <= 1 - level + 1e-12:
        return []
    few = f"{gap.n} pair{'s' * (gap.n != 1)}" if gap.paired else f"groups of {gap.n}"
    return [
        f"gap.{grouping}: {few} can never be told from no gap: the smallest p-value that the test can give is"
        f" {gap.least_p_value:.2g}, above {1 - level:.2g}; give groups with more members"
    ]


def _gap_figure(gap: GroupGap, *, judge: str) -> Metric:
    """Return the gap as a figure; the unedited model has lost nothing, so that its gap is 0."""
    which = f"{gap.most} more than {gap.least}" if gap.gap > 0 else "none"
    how = "n pairs of counterparts compared" if gap.paired else "groups compared as a whole, the smallest of n"
    return Metric(
        value=gap.gap,
        interval=gap.interval,
        original=0.0,
        change_interval=gap.interval,
        n=gap.n,
        unit="concepts",
        judge=judge,
        protocol=f"largest difference between groups in accuracy lost: {which}; {how}",
    )


def _gap_row(gap: GroupGap) -> dict[str, Any]:
    """Return a gap as a table's row, without an interval where all agree: a bootstrap has nothing to vary there."""
    low, high = gap.interval if gap.interval[0] != gap.interval[1] else (None, None)
    return {
        "most": gap.most,
        "least": gap.least,
        "gap": gap.gap,
        "low": low,
        "high": high,
        "n": gap.n,
        "p_value": gap.p_value,
        "distinguishable": gap.distinguishable,
        "paired": gap.paired,
    }
