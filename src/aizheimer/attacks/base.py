"""What every attack is, what it is given, and what it brings back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.families import FAMILIES, Family
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import anchor_prompts
from aizheimer.detectors.base import Judge, find_class, see
from aizheimer.edits.apply import lifted
from aizheimer.edits.edit import Edit
from aizheimer.errors import InputError, did_you_mean
from aizheimer.evaluation.generate import PromptJob, generate, jobs_in_turn
from aizheimer.evaluation.settings import AtLeastOne, Precision

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, total)."""

Controls: TypeAlias = bool | Literal["unedited"]
"""All controls of an attack, none, or those on the unedited model alone."""


@dataclass(frozen=True, kw_only=True)
class AttackInfo:
    """What a user chooses an attack by; ``aizheimer ls attacks`` prints it.

    Args:
        paper: Authors, title and arXiv id of where it comes from.
        access: ``"white box"`` needs gradients of the edited model, ``"grey box"`` its text encoder or its sampler,
            ``"black box"`` only draws with it.
        changes: What the attacker changes, in words: ``"the prompt"``, ``"the weights"``.
        needs: What it is given beside the edited model: of ``"unedited model"``, ``"pictures"``, ``"judge"``.
        families: Families of models that it works on; what is listed here is tested there.
        elsewhere: Why it does not work on others.
        near_words: Whether it leaves the words as they are, or nearly, so that it can be tried from a neighbour's.
    """

    paper: str
    access: Literal["white box", "grey box", "black box"]
    changes: str
    needs: tuple[str, ...] = ()
    families: tuple[Family, ...] = ("sd",)
    elsewhere: str = "it reads the words and the noise schedule as Stable Diffusion 1 and 2 have them"
    near_words: bool = False

    @property
    def works_on(self) -> str:
        """The families in words."""
        return ", ".join(FAMILIES[family].title for family in self.families)


class AttackSettings(BaseModel):
    """How many pictures decide, and how they are drawn: the same for every attack, so that rates can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: AtLeastOne = Field(default=20, description="Pictures that decide: the target's prompts, then next seeds.")
    steps: AtLeastOne = Field(default=20, description="DDIM steps.")
    guidance: float | None = Field(default=None, ge=0, description="Guidance scale; None takes the model's own.")
    seed: int = Field(default=0, ge=0, description="First seed, of the pictures and of everything random.")
    batch_size: AtLeastOne = Field(default=8, description="Pictures drawn at a time.")
    precision: Precision = Field(default="model", description="What is computed in while drawing.")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model under attack, and what an attacker may ask.

    Within `aizheimer.attacks.run.run_attack` the edit is on the pipeline already, so ``backbone`` behaves as the edited
    model does; what an attack puts on it, it takes off again. Gradients flow through ``backbone.predict`` and
    ``backbone.read_tokens``.

    Args:
        backbone: The model as it stands.
        edit: What was applied to it; None when the unedited model is attacked, as a control.
        concept: What should stay forgotten.
        judge: Names what a picture shows.
        settings: How much is drawn.
        random: Search nothing and take random words, vectors or the like in its place, of the same size: the control
            that tells an attack from luck. An attack to which that means nothing raises `NotApplicable`.
        instead: Words that stand in the prompts for the target's: the control that tells what an attack makes of a
            neighbour. What it wants back, and what the judge looks for, is the target.
        cached: Find pictures in the cache; what an attack draws is not, so that its budget is what it says.
    """

    backbone: Backbone
    edit: Edit | None
    concept: Concept
    judge: Judge
    settings: AttackSettings
    random: bool = False
    instead: str = ""
    cached: bool = False

    @property
    def guidance(self) -> float:
        """The scale that pictures are drawn with."""
        chosen = self.settings.guidance
        return self.backbone.world.guidance if chosen is None else chosen

    @property
    def jobs(self) -> list[PromptJob]:
        """The target's own prompts with their seeds, of which the attack's pictures are to be the counterparts."""
        prompts = self.backbone.world.prompts(self.concept)
        if self.instead:
            prompts = anchor_prompts(prompts, replace(self.concept, anchor=self.instead))
        return jobs_in_turn(prompts, count=self.settings.images, seed=self.settings.seed)

    def draw(self, jobs: Sequence[PromptJob], *, progress: Progress | None = None, **options: Any) -> np.ndarray:
        """Draw pictures, uint8 (n, height, width, 3), as every attack's are drawn; ``options`` as in `generate`."""
        settings = self.settings
        chosen: dict[str, Any] = {"steps": settings.steps, "guidance": self.guidance, "batch_size": settings.batch_size}
        chosen |= {"precision": settings.precision, "cache_dir": None if self.cached else False}
        return generate(self.backbone.pipe, jobs, progress=progress, **{**chosen, **options})

    def shows(self, images: np.ndarray) -> np.ndarray:
        """Return bool (n,): whether the judge sees the target in each picture."""
        wanted = target_class(self.judge, self.concept)
        return np.array([label == wanted for label in see(self.judge, images).labels])

    @contextlib.contextmanager
    def unedited(self) -> Iterator[Backbone]:
        """Lend the model without the edit, for attacks that are given it; the edit is back on afterwards."""
        if self.edit is None:
            yield self.backbone
            return
        with lifted(self.backbone.pipe):
            yield self.backbone


class NotApplicable(InputError):
    """An attack or a control that means nothing for this edit or model; the message says why."""


@dataclass(kw_only=True)
class Meter:
    """Counts what an attack spends: optimiser steps, latents through the denoiser, pictures drawn to look at."""

    steps: int = 0
    denoiser_evaluations: int = 0
    queries: int = 0
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0

    def stop(self) -> None:
        """Take the time."""
        self.seconds = time.perf_counter() - self.started

    def spent(self) -> Spent:
        """Return the sum."""
        return Spent(
            steps=self.steps,
            denoiser_evaluations=self.denoiser_evaluations,
            queries=self.queries,
            seconds=round(self.seconds, 2),
        )


class Spent(BaseModel):
    """What an attack took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=0, description="Optimiser steps.")
    denoiser_evaluations: int = Field(ge=0, description="Latents through the denoiser, drawing included.")
    queries: int = Field(ge=0, description="Pictures the attack itself had judged while it searched.")
    seconds: float = Field(ge=0)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attack brings back.

    Args:
        images: uint8 (n, height, width, 3), one for each of the subject's ``jobs``, in their order.
        queries: Pictures it had judged while it searched.
        steps: Optimiser steps it took.
        details: JSON values that tell what was found: a prompt's words, a curve of success by step.
        tensors: What was found, if it is a tensor: vectors of a new word, for instance.
    """

    images: np.ndarray
    queries: int = 0
    steps: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Attack(Protocol):
    """A way to bring a concept back; its budget and hyper-parameters are the fields of a frozen pydantic model.

    To add one: write ``attacks/<name>.py`` and add a line to ``_registry.ATTACKS``.
    """

    name: ClassVar[str]
    info: ClassVar[AttackInfo]

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Return the attack with these parameters, as pydantic models do."""
        ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """Return the parameters, as pydantic models do."""
        ...

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Try to make the model draw the concept.

        Args:
            subject: The model under attack; as it was found afterwards, bit for bit.
            progress: Told how far the search is, in steps.

        Returns:
            Pictures and what they took.

        Raises:
            NotApplicable: If this cannot be done to this model, or ``subject.random`` means nothing here.
        """
        ...


def target_class(judge: Judge, concept: Concept) -> str:
    """Return the judge's spelling of the target.

    Raises:
        InputError: If it has no such class: it could never see the concept come back.
    """
    found = find_class(judge, concept.target)
    if found is None:
        hint = did_you_mean(concept.target, judge.classes)
        raise InputError(f"{judge.name} has no class {concept.target!r}, so no attack could succeed.{hint}")
    return found
