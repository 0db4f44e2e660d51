"""How far does the damage reach: retain accuracy against the distance to what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.concepts.neighbours import nearest
from aizheimer.detectors.base import find_class
from aizheimer.errors import InputError
from aizheimer.evaluation.functional.accuracy import accuracy_by_concept
from aizheimer.evaluation.functional.damage import LEAST_CONCEPTS, DamageFit, Form, fit_damage
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.plan import PlannedImage, candidates, plan_images
from aizheimer.evaluation.results import Metric
from aizheimer.evaluation.settings import AtLeastOne
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suites._asking import draw, look

PROTOCOL = "share of pictures of {which} that the judge still names right, mean over {kind}s"
CURVE_DRAWS = 200
"""Bootstrap draws of the half-damage distance, each of which is a fit of its own."""


class Neighbours(BaseModel):
    """Draw the nearest concepts and others spread over all distances, and fit how the damage falls.

    The distance is 1 - cosine of the unedited model's text embeddings. Damage of a concept is the accuracy that it
    lost. Half-damage distance: where the fitted curve has fallen to half of its value next to the target.

    Example:
        >>> Neighbours(concepts=30).nearest
        10
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "neighbours"
    edition: ClassVar[str] = "resamples without damage left out"

    concepts: AtLeastOne = Field(default=60, description="Concepts drawn, the nearest ones included.")
    nearest: AtLeastOne = Field(default=10, description="Of them, the nearest; the others are spread over the ranks.")
    images: AtLeastOne = Field(default=3, description="Pictures of each concept.")
    curve: Form = Field(default="exponential", description="What is fitted to the damage by distance.")

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, judge and count.

        Returns:
            ``ira``, ``ira.nearest`` and ``ira.far``; tables ``nearest``, ``concepts`` and ``curve``.

        Raises:
            InputError: If the judge knows none of the other concepts.
        """
        concept, world = scene.concept, scene.backbone.world
        judge = scene.judge(concept.kind)
        words = candidates(concept, world)
        known = [word for word in words if find_class(judge, word) is not None]
        if not known:
            raise InputError(
                f"suite {self.name}: {judge.name} knows none of the {len(words)} {concept.kind}s around it"
            )
        ranked = nearest(concept.target, known, scene.backbone.embed_concepts, len(known))
        chosen = spread(ranked, self.concepts, first=self.nearest)
        plan = self._plan(scene, [label for label, _ in chosen])
        seen = look(judge, draw(scene, plan, progress, stage="neighbours"))
        wanted = [getattr(image, concept.kind) or "" for image in plan]
        accuracies = accuracy_by_concept(seen.original, wanted), accuracy_by_concept(seen.edited, wanted)
        warnings = []
        if len(known) < len(words):
            warnings.append(f"left out: {len(words) - len(known)} {concept.kind}s that the judge has no class for")
        rows = [
            {
                "concept": label,
                "distance": 1.0 - cosine,
                "unedited": accuracies[0][label],
                "edited": accuracies[1][label],
                "pictures": wanted.count(label),
            }
            for label, cosine in chosen
        ]
        tables: dict[str, list[dict[str, Any]]] = {"nearest": rows[: self.nearest], "concepts": rows}
        if len(rows) < LEAST_CONCEPTS:
            warnings.append(f"not measured: the damage curve, for {len(rows)} concepts are fewer than {LEAST_CONCEPTS}")
        else:
            tables["curve"] = [_curve(self._fit(scene, rows))]
        return SuiteResult.of(self, scene, self._figures(scene, judge.name, rows), tables=tables, warnings=warnings)

    def _plan(self, scene: Scene, labels: Sequence[str]) -> list[PlannedImage]:
        """Return the pictures as an evaluation plans its neighbours, so that one cache serves both."""
        sizes = {"neighbours": len(labels), "neighbour_images": self.images, "others": 0}
        settings = scene.settings.model_copy(update=sizes)
        plan = plan_images(scene.concept, scene.backbone.world, neighbours=labels, settings=settings)
        return [image for image in plan if image.role == "neighbour"]

    def _fit(self, scene: Scene, rows: Sequence[dict[str, Any]]) -> DamageFit:
        distance, before, after = (np.array([row[key] for row in rows]) for key in ("distance", "unedited", "edited"))
        settings = scene.settings
        draws = {"seed": settings.seed, "samples": min(settings.bootstrap, CURVE_DRAWS), "level": settings.level}
        return fit_damage(distance, before - after, form=self.curve, **draws)

    def _figures(self, scene: Scene, judge: str, rows: Sequence[dict[str, Any]]) -> dict[str, Metric]:
        kind = scene.concept.kind
        parts = {
            "ira": (rows, f"{len(rows)} {kind}s spread over the distances to the target"),
            "ira.nearest": (rows[: self.nearest], f"the {min(self.nearest, len(rows))} nearest {kind}s"),
            "ira.far": (rows[self.nearest :], f"the other {kind}s"),
        }
        return {
            name: scene.metric(
                np.array([row["unedited"] for row in part]),
                np.array([row["edited"] for row in part]),
                judge=judge,
                protocol=PROTOCOL.format(which=which, kind=kind),
                unit="concepts",
            )
            for name, (part, which) in parts.items()
            if part
        }


def spread(ranked: Sequence[tuple[str, float]], count: int, *, first: int) -> list[tuple[str, float]]:
    """Return the first few of a ranking, then others evenly from the rest, to its very end.

    Args:
        ranked: Label and cosine, nearest first.
        count: How many in all.
        first: How many from the beginning.

    Example:
        >>> [label for label, _ in spread([(c, 0.0) for c in "abcdefgh"], 4, first=2)]
        ['a', 'b', 'c', 'h']
    """
    near, rest = list(ranked[: min(first, count)]), list(ranked[first:])
    wanted = min(max(count - len(near), 0), len(rest))
    if wanted == 0:
        return near
    places = np.linspace(0, len(rest) - 1, wanted).round().astype(int)
    return [*near, *(rest[i] for i in places)]


def _curve(fit: DamageFit) -> dict[str, Any]:
    """Return a fit as a table's row."""
    low, high = fit.interval if fit.interval is not None else (None, None)
    return {
        "curve": fit.form,
        "amplitude": fit.amplitude,
        "half_distance": fit.half_distance,
        "low": low,
        "high": high,
        "degenerate": fit.degenerate,
        "width": fit.width,
        "explained": fit.explained,
        "concepts": fit.n,
        "reason": fit.reason,
    }
