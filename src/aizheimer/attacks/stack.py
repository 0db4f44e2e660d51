"""Put another edit on top: forgetting a second concept may bring the first one back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from aizheimer._seeding import generator_for
from aizheimer.attacks._starts import other_concept
from aizheimer.attacks.base import AttackInfo, NotApplicable, Outcome, Progress, Subject
from aizheimer.backbones.families import FAMILIES
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.errors import InputError
from aizheimer.recipes.load import load_recipe


class Stack(BaseModel):
    r"""Apply a second edit to the edited model, made for the same base.

    Weights become :math:`W + \Delta_1 + \Delta_2`. Edits are made and passed on one by one and applied together, so
    this needs no attacker at all. The second one comes from a folder, or is made here, on the unedited model, of
    another concept. The random control takes changes of the same size (tensor by tensor, the same Frobenius norm) in
    random directions.

    Example:
        >>> Stack(method="uce", concept="cat").method
        'uce'

    References:
        Suriyakumar et al., Unstable Unlearning, arXiv:2410.08074: further updates of a model bring a concept back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "stack"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Suriyakumar et al., Unstable Unlearning: The Hidden Risk of Concept Resurgence in Diffusion Models, "
        "arXiv:2410.08074",
        access="grey box",
        changes="the weights, by another edit",
        needs=("unedited model",),
        families=tuple(FAMILIES),
    )

    edit: Path | None = Field(default=None, description="Folder of the second edit; null makes one.")
    method: str = Field(default="uce", description="Method or recipe that makes it.")
    parameters: tuple[str, ...] = Field(default=(), description="Its parameters, each as key=value.")
    concept: str | None = Field(
        default=None, description="What the second edit forgets; null for a random other concept of the target's kind."
    )

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Draw the jobs under both edits.

        Raises:
            InputError: If the second edit forgets the target itself, was made for another base, or cannot be made.
            NotApplicable: As the random control of an edit that changes no weights.
        """
        second = self._second(subject)
        record = second.provenance
        if record.concept.target.casefold() == subject.concept.target.casefold():
            raise InputError(
                f"stack: the second edit forgets {record.concept.target!r} too; give one of another concept"
            )
        if subject.random:
            second = shuffled(second, seed=subject.settings.seed)
        with second.applied(subject.backbone.pipe):
            images = subject.draw(subject.jobs, progress=progress)
        details: dict[str, Any] = {"forgets": record.concept.target, "method": record.method}
        details["tensors"] = len(second.deltas)
        return Outcome(images=images, details=details)

    def _second(self, subject: Subject) -> Edit:
        if self.edit is not None:
            return load_edit(self.edit)
        recipe = load_recipe(self.method, self.parameters)
        world = subject.backbone.world
        chosen = (
            other_concept(subject) if self.concept is None else Concept(self.concept, kind=world.kind_of(self.concept))
        )
        with subject.unedited() as backbone:
            return recipe.method.unlearn(backbone, chosen)


def shuffled(edit: Edit, *, seed: int) -> Edit:
    """Return an edit whose changes have the same norms and random directions.

    Raises:
        NotApplicable: If it changes no weights.
    """
    if not edit.deltas or edit.hook is not None:
        raise NotApplicable("stack: an edit that acts while pictures are drawn has no random counterpart")
    deltas = {}
    for name, delta in edit.deltas.items():
        noise = torch.randn(delta.shape, generator=generator_for(seed, "stack", name))
        deltas[name] = noise * (delta.norm() / noise.norm())
    return Edit(deltas, edit.provenance)
