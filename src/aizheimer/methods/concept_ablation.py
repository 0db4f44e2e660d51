"""Concept Ablation: predict for a concept what is predicted for its anchor."""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.edits.edit import Edit
from aizheimer.engine.anchor import BankAnchor
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import begin_token_detached
from aizheimer.engine.noise_problem import NoiseProblem, RetainTerm, TargetTerm
from aizheimer.engine.noise_targets import CurrentPrediction
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._material import AnchorChoice, Material, RetainPlan, anchored
from aizheimer.methods._trained import Task, check_begin_token, check_images, learn, no_attention_stop, plan_for
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.groups import select_group
from aizheimer.modules.parameters import ParameterSelection, Part, select_layers, select_parameters

PARTS: dict[str, tuple[Part, ...]] = {"kv": ("k", "v"), "attention": ("q", "k", "v", "out")}


class ConceptAblation(BaseModel):
    r"""Train the prediction for the concept's prompts to be that for the anchor's, on pictures of the anchor.

    Model-based (a cat for a grumpy cat), with the network as it is now on both sides:

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, c),\; \operatorname{sg} \epsilon_\theta(x_t, c^*)\big)

    Noise-based: :math:`L = \operatorname{MSE}(\epsilon_\theta(x_t, c), \epsilon)`, which teaches that the concept's
    words mean the anchor's pictures. Either plus a weighted diffusion loss on the anchor's pictures under their own
    prompts.

    Example:
        >>> edit = ConceptAblation().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, arXiv:2303.13516, eq. 3 to 6.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "concept-ablation"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, arXiv:2303.13516",
        kind="fine-tune",
        needs=("prompts", "anchor", "images"),
        edits="cross-attention keys and values",
        families={**EVERYWHERE, "flux": ("detach_begin_token=false",)},
    )

    variant: Literal["model", "noise"] = Field(
        default="model", description="What the prediction should be: the anchor's (the paper's best), or the noise."
    )
    weights: Literal["kv", "attention", "full"] = Field(
        default="kv",
        description="Trained weights: keys and values of cross-attention (the paper's default), all of it (its code "
        "for nudity), or everything (memorised pictures).",
    )
    layers: str | list[str] = Field(
        default="all",
        description="all, skip_ends, a list of attention modules, or a regular expression; kv, attention.",
    )
    empty_anchor: AnchorChoice = Field(
        default="refuse",
        description="When the concept names no anchor: refuse (the paper always has one); null, the empty prompt; "
        "template, the prompt without the concept's words; auto, null for an object and template for a style.",
    )
    images: str = Field(
        default="generate:1000",
        description="Pictures of the anchor: generate:N lets the model draw N (1000 in the paper), or a folder.",
    )
    regularization_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the diffusion loss on the anchor's pictures: optional in the paper; where it is on, its "
        "authors' two codes disagree, 0.2 in CompVis's and 1.0 in diffusers'.",
    )
    detach_begin_token: bool = Field(
        default=True, description="No gradient through keys and values of the first token, as in the authors' code."
    )
    retain_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of matching the frozen model on retain prompts; the paper has no such term.",
    )
    retain: RetainPlan = Field(default=RetainPlan())
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(), description="Rollouts of retain prompts; guidance is also the pictures'."
    )
    training: TrainSettings = Field(
        default=TrainSettings(
            steps=100, lr=1.6e-5, batch_size=8, optimizer="adamw", weight_decay=0.01, clip=1.0, drift_limit=None
        ),
        description="100 steps of AdamW at 2e-6 times 8 examples in the paper (styles and objects).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ConceptAblation:
        no_attention_stop(self.training)
        check_images(self.images)
        return self

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            ConceptError: If the concept names no anchor and ``empty_anchor`` is ``refuse``.
            SelectorError: If layers selects nothing.
        """
        anchored([], concept, empty=self.empty_anchor, method=self.name)
        check_begin_token(backbone, detach=self.detach_begin_token)
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        return learn(
            self,
            backbone,
            concept,
            selection=self._selection(backbone, layers),
            task=lambda material: self._task(material, layers),
            pictures=self.images,
            forget_latents=False,
            plan=plan_for(self.rollouts, retain=self.retain_weight > 0, forget=False),
            run=run,
            callbacks=callbacks,
        )

    def _selection(self, backbone: Backbone, layers: list[str]) -> ParameterSelection:
        if self.weights == "full":
            return select_group(backbone.denoiser, "unet", layers=backbone.attention_modules())
        return select_parameters(backbone.denoiser, layers, PARTS[self.weights])

    def _task(self, material: Material, layers: list[str]) -> Task:
        backbone, data = material.backbone, material.data
        prompts = anchored(data.forget_prompts, material.concept, empty=self.empty_anchor, method=self.name)
        anchors = material.embeddings(prompts)
        latents, index = material.pictures(prompts, self.images)
        source, held = material.noised(latents, index, prompts=len(prompts))
        target = BankAnchor() if self.variant == "noise" else CurrentPrediction(backbone=backbone, embeddings=anchors)
        size = self.training.batch_size
        terms = [
            TargetTerm(
                backbone=backbone, source=source, embeddings=data.forget_embeddings, target=target, batch_size=size
            ),
            *material.teacher_term(self.retain_weight),
        ]
        if self.regularization_weight > 0:
            weight = self.regularization_weight
            term = RetainTerm(
                backbone=backbone, source=source, embeddings=anchors, batch_size=size, weight=weight, name="noise"
            )
            terms.append(term)
        forget = material.held_out(held, target=anchors if self.variant == "model" else None)
        problem = NoiseProblem(
            parameters=material.parameters, terms=terms, held_out=material.monitor(forget, data.forget_embeddings)
        )
        during = begin_token_detached(backbone.denoiser, layers) if self.detach_begin_token else nullcontext()
        return Task(problem=problem, during=during)
