"""SepME: forget a concept by changes that other prompts cannot notice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import expanded, joined
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.correlation_term import ChangeTerm, CorrelationTerm
from aizheimer.engine.gradient_rules import EmaStop
from aizheimer.engine.noise_problem import NoiseProblem, Term
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ConceptError
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, check_images, learn, no_attention_stop, plan_for
from aizheimer.methods.base import UNETS, MethodInfo, check_family, joint
from aizheimer.modules.coefficients import NullSpace, NullSpaceCoefficients, null_space, prompts_that_fit
from aizheimer.modules.parameters import select_layers, select_parameters


class SepME(BaseModel):
    r"""Make what the concept adds to a picture uncorrelated with what it used to add, inside a null space.

    .. math:: L = \operatorname{mean}\big((\epsilon_\theta(x_t, c) - \epsilon_\theta(x_t, \varnothing)) \odot
              \operatorname{sg}(\epsilon_0(x_t, c) - \epsilon_0(x_t, \varnothing))\big)
              + \lambda \frac1L \sum_l \lVert \Delta W_l \rVert_1

    with :math:`\Delta W_l = \beta A_l B` of keys and values, only :math:`A` trained, the rows of :math:`B` a basis of
    what the empty prompt's and the protected prompts' embeddings do not reach. It stops when the correlation reaches
    zero: below, it would turn the concept around.

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
        description="Stop when the running mean (0.9) of the correlation is below this; 1e-4 in the paper.",
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
        return self

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            ConceptError: If the protected prompts leave no null space; the message says how many fit.
            SelectorError: If layers selects nothing.
        """
        check_family(self, backbone)
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        parts = ("k", "v") if self.decoupled else ("q", "k", "v", "out")
        return learn(
            self,
            backbone,
            concept,
            selection=select_parameters(backbone.denoiser, layers, parts),
            task=lambda material: self._task(material, layers),
            images=self.images,
            plan=plan_for(self.rollouts, retain=False, forget=False),
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, layers: list[str]) -> Task:
        data = material.data
        source, held = material.noised_forget()
        null = expanded(data.null_embedding, len(data.forget_embeddings))
        held_out = material.monitor(material.held_out(held, target=null), data.forget_embeddings)
        stop = EmaStop(loss="correlation", below=self.stop_below, after=self.stop_after)

        def correlation(teacher: Any, null_is_kept: bool) -> CorrelationTerm:
            return CorrelationTerm(
                backbone=material.backbone,
                source=source,
                embeddings=data.forget_embeddings,
                null_embedding=data.null_embedding,
                batch_size=self.training.batch_size,
                teacher=teacher,
                null_is_kept=null_is_kept,
            )

        if not self.decoupled:
            terms = [correlation(material.teacher_weights, False), *self._l1(lambda: _free_changes(material))]
            problem = NoiseProblem(parameters=material.parameters, terms=terms, held_out=held_out)
            return Task(problem=problem, stop=stop)
        space = self._space(material)
        modules = [f"{layer}.{part}" for layer in layers for part in ("to_k", "to_v")]
        coefficients = NullSpaceCoefficients(material.backbone.denoiser, modules, space=space, scale=self.beta)
        terms = [correlation(coefficients.off, True), *self._l1(coefficients.changes)]

        def edited(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            changes = coefficients.changes(dict(tensors))
            return {name: material.originals[name].double() + changes[name] for name in material.originals}

        return Task(
            problem=NoiseProblem(parameters=coefficients.parameters, terms=terms, held_out=held_out),
            stop=stop,
            during=coefficients.active(),
            edited=edited,
            extra={"null_space": self._record(space) | {"reach": self._reach(space, data.forget_embeddings.tokens)}},
        )

    def _l1(self, changes: Any) -> list[Term]:
        return [ChangeTerm(changes=changes, weight=self.l1_weight)] if self.l1_weight > 0 else []

    def _space(self, material: Material) -> NullSpace:
        """Return what the empty prompt and the protected prompts do not reach."""
        data = material.data
        chosen = data.retain_embeddings[: self.protect]
        rows = joined([data.null_embedding, chosen]).tokens
        space = null_space(rows.flatten(0, 1), tolerance=self.tolerance)
        if len(space.basis) == 0:
            fit = max(prompts_that_fit(rows, tolerance=self.tolerance) - 1, 0)
            raise ConceptError(
                f"sepme: {len(chosen)} protected prompts leave no null space in {rows.shape[-1]} dimensions at "
                f"tolerance {self.tolerance:g}; {fit} fit: set protect={fit}, or raise tolerance"
            )
        if self._reach(space, data.forget_embeddings.tokens) <= max(space.leakage, 1e-6):
            raise ConceptError(
                f"sepme: what '{material.concept.target}' is made of is in the {len(chosen)} protected prompts too, so "
                "no change can reach it alone; lower protect or tolerance"
            )
        return space

    def _reach(self, space: NullSpace, embeddings: Tensor) -> float:
        """Return the largest part of a token of the concept's prompts that lies in the null space."""
        rows = embeddings.flatten(0, 1).double()
        return float((torch.linalg.vector_norm(rows @ space.basis.T, dim=1) / rows.norm(dim=1)).max())

    def _record(self, space: NullSpace) -> dict[str, Any]:
        return {
            "dimensions": len(space.basis),
            "rank": space.rank,
            "tolerance": self.tolerance,
            "leakage": space.leakage,
            "bound": space.bound,
        }


def _free_changes(material: Material) -> dict[str, Tensor]:
    return {name: parameter - material.originals[name] for name, parameter in material.parameters.items()}
