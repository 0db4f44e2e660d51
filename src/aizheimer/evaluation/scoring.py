"""From what the judges saw to the accuracies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import Judge, find_class, see
from aizheimer.errors import did_you_mean
from aizheimer.evaluation.functional.accuracy import accuracy_by_concept, forgotten, matches
from aizheimer.evaluation.functional.effective import LEFT_OUT, ineffective
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.plan import PlannedImage, Role
from aizheimer.evaluation.results import ImageRecord, Metric, NeighbourResult, Pair, Unit
from aizheimer.evaluation.settings import EvaluationSettings

Labels: TypeAlias = list[str | None]
T = TypeVar("T")

PROTOCOL = {
    "ua": "share of {domain} target pictures that the judge no longer calls {target!r}",
    "ira": "share of pictures of other {domain}s that the judge still names right, mean over {domain}s",
    "near": "the same, near neighbours only",
    "far": "the same, without the near neighbours",
    "cra": "share of retained pictures whose {other} the judge still names right",
}


@dataclass(frozen=True)
class Sight:
    """What the judges saw in every picture, before and after; None where there is no such judge."""

    original_object: Labels | None = None
    edited_object: Labels | None = None
    original_style: Labels | None = None
    edited_style: Labels | None = None
    original_clip: np.ndarray | None = None
    edited_clip: np.ndarray | None = None

    def labels(self, domain: str) -> tuple[Labels, Labels] | None:
        """Return the names before and after in the domain "object" or "style"."""
        before, after = getattr(self, f"original_{domain}"), getattr(self, f"edited_{domain}")
        return None if before is None or after is None else (before, after)

    def clip_mean(self, where: np.ndarray) -> Pair | None:
        """Average the CLIP scores of the marked pictures."""
        if self.original_clip is None or self.edited_clip is None or not where.any():
            return None
        return Pair(original=float(self.original_clip[where].mean()), edited=float(self.edited_clip[where].mean()))

    def record(self, index: int, image: PlannedImage, *, unchanged: bool) -> ImageRecord:
        """Put together what is known of one picture."""
        seen: dict[str, Any] = {
            name: labels[index] if (labels := getattr(self, name)) is not None else None
            for name in ("original_object", "edited_object", "original_style", "edited_style")
        }
        return ImageRecord(**dataclasses.asdict(image), unchanged=unchanged, **seen)


def look(original: np.ndarray, edited: np.ndarray, *, plan: Sequence[PlannedImage], judges: Judges) -> Sight:
    """Show all pictures (uint8 (n, height, width, 3)) to all judges.

    Raises:
        JudgeError: If one fails on a picture.
    """
    seen: dict[str, Any] = {}
    for name, pictures in (("original", original), ("edited", edited)):
        if judges.object is not None:
            seen[f"{name}_object"] = see(judges.object, pictures).labels
        if judges.style is not None:
            seen[f"{name}_style"] = see(judges.style, pictures).labels
        if judges.clip is not None:
            seen[f"{name}_clip"] = judges.clip.score(pictures, [image.prompt for image in plan]).numpy()
    return Sight(**seen)


def accuracies(
    concept: Concept,
    *,
    plan: Sequence[PlannedImage],
    sight: Sight,
    judges: Judges,
    settings: EvaluationSettings,
) -> tuple[dict[str, Metric], list[str]]:
    """Measure UA, IRA (all, near, far) and CRA.

    Pictures whose object or style the judge has no class for are left out, and that is said.

    Returns:
        The metrics that could be measured, and why the others could not.
    """
    domain, other = ("style", "object") if concept.kind == "style" else ("object", "style")
    metrics: dict[str, Metric] = {}
    missing: list[str] = []

    def measure(name: str, judge: Judge, values: tuple[np.ndarray, np.ndarray], unit: Unit) -> None:
        protocol = PROTOCOL[name].format(domain=domain, other=other, target=concept.target)
        protocol += LEFT_OUT if name == "ua" and settings.effective_only else ""
        metrics[name] = Metric.measure(*values, unit=unit, judge=judge.name, protocol=protocol, settings=settings)

    own, cross = getattr(judges, domain), getattr(judges, other)
    if own is None:
        missing.append(f"not measured: UA and IRA, for this model has no {domain} judge")
    else:
        _measure_own(
            concept, own, domain, plan=plan, sight=sight, measure=measure, missing=missing,
            effective_only=settings.effective_only,
        )  # fmt: skip
    if cross is None:
        missing.append(f"not measured: CRA, for this model has no {other} judge")
    else:
        rows, expected = _expected(cross, other, ("neighbour", "other", "cross"), plan, missing)
        if rows:
            measure("cra", cross, _both(sight, other, rows, lambda seen: matches(seen, expected)), "images")
        else:
            missing.append(f"not measured: CRA, for no retained prompt names a {other} that the judge knows")
    return metrics, missing


def _measure_own(
    concept: Concept,
    judge: Judge,
    domain: str,
    *,
    plan: Sequence[PlannedImage],
    sight: Sight,
    measure: Callable[[str, Judge, tuple[np.ndarray, np.ndarray], Unit], None],
    missing: list[str],
    effective_only: bool,
) -> None:
    """Measure the target's own domain: UA, and IRA of all, near and far concepts."""
    target = find_class(judge, concept.target)
    if target is None:
        hint = did_you_mean(concept.target, judge.classes)
        missing.append(f"not measured: UA, for the {domain} judge has no class {concept.target!r}.{hint}")
    else:
        rows = [i for i, image in enumerate(plan) if image.role == "target"]
        if effective_only:
            failing = ineffective_prompts(target, domain, plan=plan, sight=sight)
            rows = [i for i in rows if plan[i].prompt not in failing]
        if rows:
            measure("ua", judge, _both(sight, domain, rows, lambda seen: forgotten(seen, target)), "images")
        else:
            missing.append(f"not measured: UA, for the unedited model shows {concept.target!r} on none of its prompts")
    for name, roles in (("ira", ("neighbour", "other")), ("near", ("neighbour",)), ("far", ("other",))):
        rows, expected = _expected(judge, domain, roles, plan, missing if name == "ira" else [])
        if rows:
            values = _both(
                sight, domain, rows, lambda seen, e=expected: np.array(list(accuracy_by_concept(seen, e).values()))
            )
            measure(name, judge, values, "concepts")
        elif name == "ira":
            missing.append(f"not measured: IRA, for the judge knows none of the retained {domain}s")


def ineffective_prompts(
    target: str, domain: str, *, plan: Sequence[PlannedImage], sight: Sight
) -> dict[str, float]:  # fmt: skip
    """Return the target prompts on which the unedited model does not show the target, and how often each does.

    Args:
        target: In the judge's spelling.
        domain: "object" or "style".
        plan: What was drawn.
        sight: What was seen in it.
    """
    rows = [i for i, image in enumerate(plan) if image.role == "target"]
    shown, _ = _both(sight, domain, rows, lambda seen: matches(seen, [target] * len(seen)))
    return ineffective([plan[i].prompt for i in rows], shown)


def neighbour_results(
    judge: Judge | None,
    domain: str,
    role: Role,
    *,
    plan: Sequence[PlannedImage],
    sight: Sight,
    similarity: dict[str, float],
) -> list[NeighbourResult]:
    """Return the retained concepts of one role that the judge knows, one by one, in the order of the plan."""
    if judge is None:
        return []
    rows, expected = _expected(judge, domain, (role,), plan, [])
    before, after = _both(sight, domain, rows, lambda seen: accuracy_by_concept(seen, expected))
    return [
        NeighbourResult(
            label=label,
            original=before[label],
            edited=after[label],
            similarity=similarity.get(label),
            n=expected.count(label),
        )
        for label in before
    ]


def _expected(
    judge: Judge, domain: str, roles: Sequence[str], plan: Sequence[PlannedImage], missing: list[str]
) -> tuple[list[int], list[str]]:
    """Return the rows of the roles whose wanted name the judge knows, and those names; note the names it lacks."""
    rows, expected, unknown = [], [], []
    for i, image in enumerate(plan):
        wanted = getattr(image, domain)
        if image.role not in roles or wanted is None:
            continue
        if find_class(judge, wanted) is None:
            unknown.append(wanted)
        else:
            rows.append(i)
            expected.append(wanted)
    if unknown:
        names = list(dict.fromkeys(unknown))
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        missing.append(f"left out, for the {domain} judge has no such class: {shown}")
    return rows, expected


def _both(sight: Sight, domain: str, rows: Sequence[int], values: Callable[[Labels], T]) -> tuple[T, T]:
    """Apply ``values`` to the names before and after in the given rows."""
    labels = sight.labels(domain)
    if labels is None:
        raise ValueError(f"no {domain} judge has looked")
    before, after = (values([seen[i] for i in rows]) for seen in labels)
    return before, after
