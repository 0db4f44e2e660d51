"""What an evaluation found, as JSON that explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer._records import load_record, save_record
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval
from aizheimer.evaluation.plan import Role
from aizheimer.evaluation.settings import EvaluationSettings

Interval: TypeAlias = tuple[float, float]
Unit: TypeAlias = Literal["images", "concepts"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Units(_Frozen):
    """The single values that a figure is the mean of, row by row of both models: two edits are compared by these.

    Attributes:
        original: (n,) of the unedited model: 1.0 where a picture counts, or a concept's accuracy.
        edited: (n,) with the edit, of the same pictures or concepts.
    """

    original: list[float]
    edited: list[float]

    @classmethod
    def of(cls, original: np.ndarray, edited: np.ndarray) -> Units:
        """Keep two vectors (n,)."""
        return cls(original=original.astype(float).tolist(), edited=edited.astype(float).tolist())


class Metric(_Frozen):
    """A share in [0, 1], measured on the edited model with the unedited model's value beside it.

    Attributes:
        value: With the edit.
        interval: Bootstrap interval of ``value``.
        original: Of the unedited model, on the same prompts and seeds.
        change_interval: Paired bootstrap interval of ``value - original``: it excludes 0 if the edit made a difference.
        n: Units averaged.
        unit: What one unit is: "images" or "concepts".
        judge: Who looked.
        protocol: What was counted, in words.
        units: The single values, in suites; None in evaluations, whose pictures are kept one by one, for what is no
            mean of such values, and in files of before they were kept.
    """

    value: float
    interval: Interval
    original: float
    change_interval: Interval
    n: int
    unit: Unit
    judge: str
    protocol: str
    units: Units | None = None

    @property
    def change(self) -> float:
        """Edited minus unedited."""
        return self.value - self.original

    @property
    def ratio(self) -> float | None:
        """Edited over unedited, None if the unedited model has 0."""
        return self.value / self.original if self.original > 0 else None

    @classmethod
    def measure(
        cls,
        original: np.ndarray,
        edited: np.ndarray,
        *,
        unit: Unit,
        judge: str,
        protocol: str,
        settings: EvaluationSettings,
    ) -> Metric:
        """Average paired values (n,) of both models and put intervals around them."""
        draws: dict[str, Any] = {"seed": settings.seed, "samples": settings.bootstrap, "level": settings.level}
        return cls(
            value=float(edited.mean()),
            interval=bootstrap_interval(edited, **draws),
            original=float(original.mean()),
            change_interval=bootstrap_interval(edited - original, **draws),
            n=len(edited),
            unit=unit,
            judge=judge,
            protocol=protocol,
        )


class Distance(_Frozen):
    """A number that means something only with the network it was computed by: FID, KID, CMMD, a CLIP score.

    Compare or tabulate two only after `aizheimer.evaluation.distances.comparable`.

    Attributes:
        metric: What it is: "fid", "kid", "cmmd", "perceptual" or "clip-score".
        value: With the edit.
        original: Of the unedited model, computed alike.
        interval: Bootstrap interval of ``value``, for means over pictures; None for a number of whole sets.
        change_interval: Paired bootstrap interval of ``value - original``, likewise.
        n: Pictures of each model.
        n_reference: Pictures they are held against.
        reference: Hash of those pictures, or of the prompts.
        extractor: Name of the network.
        dim: Numbers it gives for a picture.
        weights: Hash of its weights and of how pictures are fed to it.
        implementation: The code that computed it.
        protocol: What was compared with what, in words.
    """

    metric: str
    value: float
    original: float
    interval: Interval | None = None
    change_interval: Interval | None = None
    n: int = Field(ge=1)
    n_reference: int = Field(ge=1)
    reference: str
    extractor: str
    dim: int = Field(ge=1)
    weights: str
    implementation: str
    protocol: str

    @property
    def change(self) -> float:
        """Edited minus unedited."""
        return self.value - self.original


class Share(_Frozen):
    """A share of n pictures with Wilson's interval, which has a width even where all agree."""

    value: float
    interval: Interval
    n: int


class Calibration(_Frozen):
    """How often the judge itself errs on one concept, without any edit: what UA must be read against.

    Attributes:
        judge: Who looked.
        target: The concept.
        false_negative: Share of the unedited model's target pictures that the judge does not call the target. The judge
            may be blind or the model may have failed to draw it; nobody else looked, so this is the most it can be.
        false_positive: Share of pictures that should show something else which the judge calls the target.
    """

    judge: str
    target: str
    false_negative: Share | None = None
    false_positive: Share | None = None

    @property
    def brief(self) -> str:
        """Both in a few words: "judge misses 2%, takes 1% for it"; "" if neither was counted."""
        told = {"misses {:.3g}%": self.false_negative, "takes {:.3g}% for it": self.false_positive}
        parts = [words.format(100 * share.value) for words, share in told.items() if share is not None]
        return f"judge {', '.join(parts)}" if parts else ""


class NeighbourResult(_Frozen):
    """One retained concept: the share of its pictures that the judge names right.

    ``similarity`` is the cosine to the target by text embedding, None for a concept that is no near neighbour.
    """

    label: str
    original: float
    edited: float
    similarity: float | None
    n: int


class Pair(_Frozen):
    """A number before and after."""

    original: float
    edited: float


class ImageRecord(_Frozen):
    """One prompt and seed, what the judges saw in both pictures, and whether the picture changed."""

    role: Role
    prompt: str
    seed: int
    object: str | None
    style: str | None
    original_object: str | None = None
    edited_object: str | None = None
    original_style: str | None = None
    edited_style: str | None = None
    unchanged: bool


class EvaluationResult(_Frozen):
    """What was forgotten, what was kept, and whether the numbers can be trusted.

    Attributes:
        schema_version: Of this file.
        target: The concept asked to be forgotten.
        kind: "object" or "style".
        model_name: Name of the world or model.
        edit: `Edit.digest` of the edit; empty for the unedited model, None in files of before it was written.
        ua: Unlearning accuracy; None if no judge knows the target.
        ira: In-domain retain accuracy, near and far concepts alike.
        cra: Cross-domain retain accuracy.
        near: IRA of the near neighbours alone.
        far: IRA of the other concepts alone.
        ineffective: Target prompts on which the unedited model does not show the target, and the share of their
            pictures that do; they count unless ``settings.effective_only``. Empty in files of before they were listed.
        calibration: How often the judge errs on the unedited model's pictures; None in files of before it was counted.
        neighbours: Near neighbours one by one, nearest first.
        others: The other concepts one by one.
        clip_target: Mean CLIP score of target prompts, if there is a CLIP.
        clip_retain: Mean CLIP score of retained prompts.
        unchanged_share: Share of target pictures that stayed as they were, but for rounding.
        unchanged_retain_share: The same of retained pictures.
        broken: Share of blank or noise pictures.
        broken_retain: The same of retained pictures: the benign blocking rate of a filter, which paints pictures grey;
            None in files of before it was counted.
        no_op: The edit changed nothing.
        collapse: The model lost more than the concept.
        warnings: Why a flag is up, and what could not be measured.
        settings: How it was measured.
        guidance: The scale that was used.
        made_from: Who judged and with which weights, as digests. Empty in files of before it was written.
        images: Every picture, in the order drawn.
    """

    schema_version: Literal[1] = 1
    target: str
    kind: Literal["object", "style"]
    model_name: str
    edit: str | None = None
    ua: Metric | None = None
    ira: Metric | None = None
    cra: Metric | None = None
    near: Metric | None = None
    far: Metric | None = None
    ineffective: dict[str, float] = Field(default_factory=dict)
    calibration: Calibration | None = None
    neighbours: list[NeighbourResult] = Field(default_factory=list)
    others: list[NeighbourResult] = Field(default_factory=list)
    clip_target: Pair | None = None
    clip_retain: Pair | None = None
    unchanged_share: float
    unchanged_retain_share: float
    broken: Pair
    broken_retain: Pair | None = None
    no_op: bool
    collapse: bool
    warnings: list[str] = Field(default_factory=list)
    settings: EvaluationSettings
    guidance: float
    made_from: dict[str, str] = Field(default_factory=dict)
    images: list[ImageRecord]

    def save(self, path: str | Path) -> None:
        """Write JSON, all of it or nothing."""
        save_record(self, path)

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResult:
        """Read what ``save`` wrote.

        Raises:
            DataError: If the file is missing or is not an evaluation.
        """
        return load_record(
            cls,
            path,
            missing="run `aizheimer evaluate` first",
            damaged="not an evaluation ({reason}); run `aizheimer evaluate` again",
        )
