"""SepME: forget a concept by changes that other prompts cannot notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer._names import dashed
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning, expanded, joined
from aizheimer.concepts.concept import Concept
from aizheimer.data.cache import tensor_hash
from aizheimer.data.images import check_picture_folder
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.prepare import forget_prompts_of, generate_count
from aizheimer.data.sources import NoisedSource, together
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.correlation_term import ChangeTerm, CorrelationTerm, SimultaneousTerm
from aizheimer.engine.gradient_rules import EmaStop
from aizheimer.engine.noise_problem import NoiseMonitor, NoiseProblem, Term
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._held_prompts import HeldPrompts, leakage_line, space_beside, space_record
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._several import named_beside, once_each
from aizheimer.methods._trained import Task, check_images, learn, no_attention_stop, plan_for
from aizheimer.methods.base import UNETS, MethodInfo, check_family, joint
from aizheimer.modules.coefficients import NullSpace, NullSpaceCoefficients
from aizheimer.modules.parameters import select_layers, select_parameters


@dataclass(frozen=True)
class _Subject:
    """A concept that is trained: what its loss is called, its prompts, and its pictures to train on and held out."""

    concept: Concept
    loss: str
    embeddings: Conditioning
    source: NoisedSource
    held: NoisedSource


class SepME(BaseModel):
    r"""Make what the concept adds to a picture uncorrelated with what it used to add, inside a null space.

    .. math:: L = \operatorname{mean}\big((\epsilon_\theta(x_t, c) - \epsilon_\theta(x_t, \varnothing)) \odot
              \operatorname{sg}(\epsilon_0(x_t, c) - \epsilon_0(x_t, \varnothing))\big)
              + \lambda \frac1L \sum_l \lVert \Delta W_l \rVert_1

    with :math:`\Delta W_l = \beta A_l B` of keys and values, only :math:`A` trained, the rows of :math:`B` a basis of
    what the empty prompt's and the protected prompts' embeddings do not reach. It stops when the correlation reaches
    zero: below, it would turn the concept around.

    Several concepts are forgotten at once with ``also``, :math:`L = \sum_j \eta_j L_j` with
    :math:`\eta_j = \max_k |L_k| / |L_j|`; or one after the other, each run with the others ``reserved``: then the edits
    add, and any of them can be taken away, without touching the others.

    Example:
        >>> edit = SepME().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Zhao et al., Separable Multi-Concept Erasure from Diffusion Models, arXiv:2402.05947.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "sepme"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Zhao et al., Separable Multi-Concept Erasure from Diffusion Models, arXiv:2402.05947",
        kind="fine-tune",
        needs=("prompts", "images", "retain prompts"),
        edits="cross-attention keys and values, inside a null space",
        status="stable",
        families=UNETS,
        elsewhere=joint(
            "a joint block's keys and values read words that the picture has changed, so no null space keeps them"
        ),
    )

    decoupled: bool = Field(
        default=True,
        description="Train coefficients of the null space; false trains all cross-attention freely, as the paper does "
        "for a single concept (then training.lr should be 1e-5 to 1e-6).",
    )
    layers: str | list[str] = Field(
        default="all", description="all, skip_ends, a list of attention modules, or a regular expression."
    )
    protect: int = Field(
        default=9,
        ge=0,
        description="Retain prompts, the user's first, whose keys and values cannot change; with the empty prompt 9 "
        "of 77 tokens fit 768 dimensions exactly. The guarantee is for these very prompts.",
    )
    also: tuple[str, ...] = Field(
        default=(),
        description="Further concepts, trained simultaneously, each on pictures of its own; a folder as images then "
        "has a sub-folder for every concept, named after it with dashes.",
    )
    balance_limit: float = Field(
        default=10.0,
        ge=1,
        description="Largest weight of a concept's loss beside the largest loss's 1. Ours: where a correlation crosses "
        "zero the paper's weight has no bound.",
    )
    reserved: tuple[str, ...] = Field(
        default=(),
        description="Concepts that are or will be forgotten in runs of their own: this edit cannot change the keys and "
        "values of their prompts, so that the edits add up and any can be taken away. Each run names the others.",
    )
    reserved_prompts: int = Field(
        default=1,
        ge=1,
        description="Prompts of each reserved concept, the world's first; 1 in the paper. The guarantee is for these.",
    )
    tolerance: float = Field(
        default=1e-6,
        ge=0,
        lt=1,
        description="Singular values below this share of the largest count as zero: larger lets more prompts fit and "
        "leaks more. Ours; the paper solves symbolically.",
    )
    beta: float = Field(default=1e-4, gt=0, description="Scale of the null-space basis; 1e-4 in the paper.")
    l1_weight: float = Field(default=1e-6, ge=0, description="Lambda; 1e-6 in the paper.")
    stop_below: float = Field(
        default=1e-4,
        description="Stop when the running mean (0.9) of the correlation, the largest of several, is below this; 1e-4 "
        "in the paper.",
    )
    stop_after: int = Field(default=10, ge=1, description="Steps that are done in any case; 10 in the paper.")
    images: str = Field(
        default="generate:1000",
        description="The concept's pictures: generate:N lets the model draw N (1000 in the paper), or a folder.",
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="Protected, in order, and watched.")
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(), description="Rollouts of the held-out retain prompts; guidance is also the pictures'."
    )
    training: TrainSettings = Field(
        default=TrainSettings(steps=1000, lr=0.1, batch_size=1, optimizer="adam", clip=None, drift_limit=None),
        description="At most 1000 steps of Adam at 0.1 (times beta), one example each, in the paper.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> SepME:
        no_attention_stop(self.training)
        check_images(self.images)
        once_each((*self.also, *self.reserved), field="also and reserved")
        if self.reserved and not self.decoupled:
            raise ValueError("reserved holds prompts by the null space, which decoupled=false does without; empty one")
        return self

    @property
    def rolled_out(self) -> RolloutPlan:
        """The rollouts that are made: one in the place of those that nothing is trained on."""
        return plan_for(self.rollouts, retain=False, forget=False)

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            ConceptError: If the protected prompts leave no null space; the message says how many fit. Or if a concept
                of ``also`` or ``reserved`` is the concept itself, is also kept, or is cut off in its prompts.
            DataError: If there is no folder of a concept's pictures.
            SelectorError: If layers selects nothing.
        """
        check_family(self, backbone)
        others = self._others(backbone, concept)
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        parts = ("k", "v") if self.decoupled else ("q", "k", "v", "out")
        return learn(
            self,
            backbone,
            concept,
            selection=select_parameters(backbone.denoiser, layers, parts),
            task=lambda material: self._task(material, layers),
            images=self._images(concept),
            plan=self.rolled_out,
            without=others,
            run=run,
            callbacks=callbacks,
        )

    def _others(self, backbone: Backbone, concept: Concept) -> list[Concept]:
        """Return the concepts of ``also``, then the reserved ones."""
        fields = {"also": self.also, "reserved": self.reserved}
        others = []
        for field, words in ((field, words) for field, named in fields.items() for words in named):
            other = named_beside(backbone.world, words, concept, field=field)
            others.append(other)
            backbone.token_columns(backbone.world.prompts(other), other.target, policy="concept")
            if field == "also" and generate_count(self._images(other)) is None:
                check_picture_folder(Path(self._images(other)))
        return others

    def _images(self, concept: Concept) -> str:
        """Return where a concept's pictures come from."""
        if not self.also or generate_count(self.images) is not None:
            return self.images
        return str(Path(self.images) / dashed(concept.target))

    def _task(self, material: Material, layers: list[str]) -> Task:
        subjects = self._subjects(material)
        stop = EmaStop(
            loss=subjects[0].loss,
            others=tuple(subject.loss for subject in subjects[1:]),
            below=self.stop_below,
            after=self.stop_after,
        )
        held_out = self._held_out(material, subjects)
        made = {f"forget {one.concept.target}": tensor_hash(one.source.latents) for one in subjects[1:]}

        if not self.decoupled:
            terms = self._terms(material, subjects, teacher=material.teacher_weights)
            terms += self._l1(lambda: _free_changes(material))
            problem = NoiseProblem(parameters=material.parameters, terms=terms, held_out=held_out)
            return Task(problem=problem, stop=stop, data=made)
        space, record = self._space(material, subjects)
        modules = [f"{layer}.{part}" for layer in layers for part in ("to_k", "to_v")]
        coefficients = NullSpaceCoefficients(material.backbone.denoiser, modules, space=space, scale=self.beta)
        terms = [*self._terms(material, subjects, teacher=coefficients.off), *self._l1(coefficients.changes)]

        def edited(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            changes = coefficients.changes(dict(tensors))
            return {name: material.originals[name].double() + changes[name] for name in material.originals}

        return Task(
            problem=NoiseProblem(parameters=coefficients.parameters, terms=terms, held_out=held_out),
            stop=stop,
            during=coefficients.active(),
            data=made,
            edited=edited,
            extra={"null_space": record, "printed": {"leakage": leakage_line(record)}},
        )

    def _subjects(self, material: Material) -> list[_Subject]:
        """Return what is trained: the concept, and those beside it, each with pictures of its own."""
        data, backbone = material.data, material.backbone
        source, held = material.noised_forget()
        name = "correlation"
        found = [
            _Subject(
                material.concept,
                f"{name} of {material.concept.target}" if self.also else name,
                data.forget_embeddings,
                source,
                held,
            )
        ]
        for words in self.also:
            other = backbone.world.beside(words, material.concept)
            prompts = forget_prompts_of(backbone, other, seed=self.training.seed)
            latents, index = material.pictures(prompts, self._images(other))
            source, held = material.noised(latents, index, prompts=len(prompts))
            found.append(_Subject(other, f"{name} of {other.target}", material.embeddings(prompts), source, held))
        return found

    def _terms(
        self, material: Material, subjects: Sequence[_Subject], *, teacher: Callable[[], AbstractContextManager[Any]]
    ) -> list[Term]:
        terms = [
            CorrelationTerm(
                backbone=material.backbone,
                source=subject.source,
                embeddings=subject.embeddings,
                null_embedding=material.data.null_embedding,
                batch_size=self.training.batch_size,
                teacher=teacher,
                null_is_kept=self.decoupled,
                name=subject.loss,
            )
            for subject in subjects
        ]
        return [terms[0] if len(terms) == 1 else SimultaneousTerm(terms=terms, limit=self.balance_limit)]

    def _held_out(self, material: Material, subjects: Sequence[_Subject]) -> NoiseMonitor:
        """Watch examples of every concept: what is left of the way to the empty prompt's prediction."""
        draws, first = [], 0
        for subject in subjects:
            null = expanded(material.data.null_embedding, len(subject.embeddings))
            draw = material.held_out(subject.held, target=null)
            draws.append(replace(draw, prompt_index=draw.prompt_index + first))
            first += len(subject.embeddings)
        return material.monitor(together(draws), joined([subject.embeddings for subject in subjects]))

    def _l1(self, changes: Any) -> list[Term]:
        return [ChangeTerm(changes=changes, weight=self.l1_weight)] if self.l1_weight > 0 else []

    def _space(self, material: Material, subjects: Sequence[_Subject]) -> tuple[NullSpace, dict[str, Any]]:
        """Return what the empty prompt, the reserved prompts and the protected prompts do not reach, and its record."""
        backbone, data = material.backbone, material.data
        others = [backbone.world.beside(words, material.concept) for words in self.reserved]
        reserved = [p for one in others for p in backbone.world.prompts(one)[: self.reserved_prompts]]
        held = HeldPrompts(
            null=data.null_embedding,
            reserved=material.embeddings(reserved) if reserved else None,
            protected=data.retain_embeddings[: self.protect],
        )
        forgotten = {subject.concept.target: subject.embeddings.tokens for subject in subjects}
        space = space_beside(held, forgotten, tolerance=self.tolerance, method=self.name)
        return space, space_record(space, forgotten, tolerance=self.tolerance) | {"reserved": reserved}


def _free_changes(material: Material) -> dict[str, Tensor]:
    return {name: parameter - material.originals[name] for name, parameter in material.parameters.items()}
