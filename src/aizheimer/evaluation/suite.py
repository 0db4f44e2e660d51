"""What every suite is: a question asked of an edit, answered by figures that carry their protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer._records import load_record, save_record
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import Judge
from aizheimer.errors import InputError
from aizheimer.evaluation.evaluate import AppliedEdit, ImagePairs, draw_pairs
from aizheimer.evaluation.generate import Progress, StageProgress
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.plan import PlannedImage
from aizheimer.evaluation.results import Calibration, Distance, Metric, Unit, Units
from aizheimer.evaluation.reuse import contents_of
from aizheimer.evaluation.settings import EvaluationSettings


class WouldDraw(Exception):
    """What a scene that must not draw raises where its first picture would be drawn: all before it went well."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The edit under evaluation, and how its pictures are drawn: one cache feeds every suite.

    Args:
        backbone: The unedited model; left as it was found.
        edit: What is evaluated; None measures the unedited model against itself.
        concept: The target.
        judges: Who looks.
        settings: Steps, guidance, seeds, batch and bootstrap; a suite decides itself how many pictures it draws.
        cache_dir: As in `aizheimer.evaluation.generate.generate`.
        edit_key: As in `aizheimer.evaluation.evaluate.evaluate`.
        draws: False stops a suite at its first picture by `WouldDraw`: what it refuses is known by then.
    """

    backbone: Backbone
    edit: AppliedEdit | None
    concept: Concept
    judges: Judges
    settings: EvaluationSettings
    cache_dir: Path | str | Literal[False] | None = None
    edit_key: str = ""
    draws: bool = True

    @property
    def guidance(self) -> float:
        """The scale that pictures are drawn with."""
        chosen = self.settings.guidance
        return self.backbone.world.guidance if chosen is None else chosen

    def judge(self, kind: str) -> Judge:
        """Return the judge of objects or of styles.

        Raises:
            InputError: If this model brings none.
        """
        judge = getattr(self.judges, kind)
        if judge is None:
            own = self.concept.kind
            where = f"name a folder as '{kind}' under judges in its world.json"
            how = "give one with --judge" if kind == own else f"--judge gives one of {own}s, the target's kind: {where}"
            raise InputError(f"this model has no {kind} judge; {how}, or a CLIP folder with --clip")
        return judge

    def pairs(self, plan: Sequence[PlannedImage], *, progress: Progress | None = None) -> ImagePairs:
        """Draw every planned picture without the edit and with it.

        Raises:
            WouldDraw: If this scene must not draw.
        """
        if not self.draws:
            raise WouldDraw
        return draw_pairs(
            self.backbone.pipe, self.edit, plan=plan, settings=self.settings, guidance=self.guidance,
            cache_dir=self.cache_dir, edit_key=self.edit_key, progress=progress,
        )  # fmt: skip

    def metric(
        self, original: np.ndarray, edited: np.ndarray, *, judge: str, protocol: str, unit: Unit = "images"
    ) -> Metric:
        """Average paired values (n,) of both models, put intervals around them, and keep the values."""
        values = np.asarray(original, dtype=float), np.asarray(edited, dtype=float)
        found = Metric.measure(*values, unit=unit, judge=judge, protocol=protocol, settings=self.settings)
        return found.model_copy(update={"units": Units.of(*values)})


class SuiteResult(BaseModel):
    """What a suite found.

    Attributes:
        schema_version: Of this file.
        suite: Its name.
        parameters: Its own parameters.
        target: The concept.
        kind: "object" or "style".
        model_name: Name of the world or model.
        figures: By dotted name (``"ua.synonyms"``): what gates ask for and comparisons show, each with its protocol,
            judge, n, interval and the unedited model's value.
        distances: By name (``"kid"``): numbers that only mean something with the network that computed them.
        tables: Rows of JSON values by title: families, neighbours, groups one by one.
        settings: How pictures were drawn.
        guidance: The scale that was used.
        made_from: What no other field says and decides the figures: digests of the edit (of the base if there is none),
            of who judged and with which weights, of the files that parameters name, and the suite's edition if it has
            one. Empty in files of before it was written; of before the weights were, without these.
        calibration: How often the judge of UA errs on the unedited model's pictures, in suites that state a UA; None in
            others, and in files of before it was counted.
        warnings: Why a figure must be read with care, and what could not be measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    suite: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    target: str
    kind: Literal["object", "style"]
    model_name: str
    figures: dict[str, Metric]
    distances: dict[str, Distance] = Field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    settings: EvaluationSettings
    guidance: float
    made_from: dict[str, str] = Field(default_factory=dict)
    calibration: Calibration | None = None
    warnings: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, suite: Suite, scene: Scene, figures: dict[str, Metric], **rest: Any) -> SuiteResult:
        """Return the figures with all that tells where they come from."""
        return cls(figures=figures, **asked_of(suite, scene), **rest)

    def save(self, path: str | Path) -> None:
        """Write JSON, all of it or nothing."""
        save_record(self, path)

    @classmethod
    def load(cls, path: str | Path) -> SuiteResult:
        """Read what ``save`` wrote.

        Raises:
            DataError: If the file is missing or is not a suite's result.
        """
        return load_record(
            cls,
            path,
            missing="run `aizheimer evaluate` first",
            damaged="not a suite's result ({reason}); evaluate again",
        )


def asked_of(suite: Suite, scene: Scene) -> dict[str, Any]:
    """Return what decides a suite's figures, by field of its result and as JSON values."""
    # An edit's digest names its base too, and hashing a large base takes seconds.
    edit = getattr(scene.edit, "digest", scene.edit_key)
    what = {"base": scene.backbone.fingerprint()} if scene.edit is None else {"edit": edit}
    return {
        "suite": suite.name,
        "parameters": suite.model_dump(mode="json"),
        "target": scene.concept.target,
        "kind": scene.concept.kind,
        "model_name": scene.backbone.world.name,
        "settings": scene.settings.model_dump(mode="json"),
        "guidance": scene.guidance,
        "made_from": {
            **what,
            **scene.judges.made_from(),
            **contents_of(suite.model_dump()),
            **({"edition": edition} if (edition := getattr(suite, "edition", "")) else {}),
        },
    }


@runtime_checkable
class Suite(Protocol):
    """A question asked of an edit; its parameters are the fields of a frozen pydantic model.

    To add one: write ``evaluation/suites/<name>.py``, add a line to ``_registry.SUITES``, and a YAML file of the same
    name beside it with the parameters that published figures use. One that asks no judge of objects or styles says so
    by ``asks_judge: ClassVar[bool] = False``; one that counts otherwise than it did says what is new by
    ``edition: ClassVar[str]``, so that results of before are not taken for today's.
    """

    name: ClassVar[str]

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Return the suite with these parameters, as pydantic models do."""
        ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """Return the parameters, as pydantic models do."""
        ...

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, judge and count.

        Raises:
            InputError: If this model or target cannot be asked this; the message says why.
        """
        ...
