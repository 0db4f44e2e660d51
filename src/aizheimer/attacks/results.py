"""What an attack found, as JSON that explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer._records import load_record, save_record
from aizheimer.attacks.base import AttackSettings, Controls, Spent
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval
from aizheimer.evaluation.results import Interval


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Frozen):
    """The share of pictures in which the judge sees the target, in [0, 1].

    Attributes:
        value: The share.
        interval: Its bootstrap interval, 95 %.
        n: Pictures.
    """

    value: float
    interval: Interval
    n: int

    @classmethod
    def of(cls, seen: np.ndarray, *, seed: int) -> Rate:
        """Average bool (n,)."""
        interval = bootstrap_interval(seen.astype(float), seed=seed, samples=2000, level=0.95)
        return cls(value=float(seen.mean()), interval=interval, n=len(seen))


class Answers(_Frozen):
    """Whether the judge sees the target in each picture, in the order of the attack's jobs.

    Attributes:
        before: With the edit, without the attack.
        alone: In the attack's own pictures.
        original: Of the unedited model, without the attack; None if that is what was attacked.
    """

    before: list[bool]
    alone: list[bool]
    original: list[bool] | None = None

    @property
    def either(self) -> np.ndarray:
        """Bool (n,): with the attack or without, which is what ASR counts."""
        return np.array(self.before, dtype=bool) | np.array(self.alone, dtype=bool)


class AttackResult(_Frozen):
    """Whether a concept came back, and whether that means anything.

    ASR follows UnlearnDiffAtk: a picture counts if the target is in it with the attack *or* without, so that the rate
    contains the rate before the attack. An attack that fails on the unedited model too (``unedited``) says nothing of
    the edit; one that does no better than its random control (``random``) is no attack; one that brings the target out
    of its neighbour on the unedited model as well (``neighbour``) does not need what the edit took away.

    Attributes:
        schema_version: Of this file.
        attack: Its name.
        label: What this result is called, where one attack was run with several parameters; empty: by its name.
        parameters: Its budget and hyper-parameters.
        target: The concept.
        kind: "object" or "style".
        edit: `Edit.digest` of the edit; empty for the unedited model.
        access: What the attacker must have.
        before: Target in the pictures without the attack.
        alone: Target in the attack's own pictures.
        asr: Either of the two, picture by picture.
        unedited: ``alone`` of the same attack on the unedited model; None if it was not run.
        unedited_before: ``before`` of the unedited model; None if that is what was attacked.
        random: ``alone`` of the random control; None if it was not run or means nothing here.
        neighbour: ``alone`` of the same attack on the unedited model from the words of another concept, the nearest:
            as much of an edit's rate is no fault of the edit, for none can resist it that keeps what lies around that
            concept. None if it was not run or means nothing here.
        neighbour_words: That concept.
        controls: Which controls were asked for.
        spent: What it took, controls not counted.
        judge: Who looked.
        settings: How pictures were drawn.
        guidance: The scale that was used.
        made_from: What no other field says and decides the rates: digests of the judge's classes and weights, of the
            files that parameters name, and of the base where no edit was attacked. Empty in files of before it was
            written; of before the weights were, without these.
        details: What was found, as the attack tells it.
        warnings: Why the rates must be read with care.
        answers: What the judge said picture by picture; None in files of before it was kept.
    """

    schema_version: Literal[1] = 1
    attack: str
    label: str = ""
    parameters: dict[str, Any]
    target: str
    kind: Literal["object", "style"]
    edit: str = ""
    access: str
    before: Rate
    alone: Rate
    asr: Rate
    unedited: Rate | None = None
    unedited_before: Rate | None = None
    random: Rate | None = None
    neighbour: Rate | None = None
    neighbour_words: str = ""
    controls: Controls = True
    spent: Spent
    judge: str
    settings: AttackSettings
    guidance: float
    made_from: dict[str, str] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    answers: Answers | None = None

    @property
    def called(self) -> str:
        """Its label, or the attack's name."""
        return self.label or self.attack

    def save(self, path: str | Path) -> None:
        """Write JSON, all of it or nothing."""
        save_record(self, path)

    @classmethod
    def load(cls, path: str | Path) -> AttackResult:
        """Read what ``save`` wrote.

        Raises:
            DataError: If the file is missing or is not the result of an attack.
        """
        return load_record(
            cls,
            path,
            missing="run `aizheimer attack` first",
            damaged="not an attack's result ({reason}); run `aizheimer attack` again",
        )
