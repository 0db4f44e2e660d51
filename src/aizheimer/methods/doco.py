"""DoCo: make a concept's pictures pass for its anchor's before a discriminator."""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.sources import NoisedSource
from aizheimer.edits.edit import Edit
from aizheimer.engine.adversary import AdversarialTerm, Adversary, AfterWarmup
from aizheimer.engine.anchor import LiveAnchor
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import ConflictProjection, begin_token_detached
from aizheimer.engine.noise_problem import NoiseProblem, RetainTerm, Term
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._material import AnchorChoice, Material, RetainPlan, anchored
from aizheimer.methods._trained import Task, check_begin_token, check_images, learn, no_attention_stop, plan_for
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.parameters import select_layers, select_parameters
from aizheimer.objectives.adversarial import PatchDiscriminator


class DoCo(BaseModel):
    r"""Move what the concept's prompts draw into the anchor's domain, and never against the gradient of keeping it.

    With :math:`f = \hat x_0(\epsilon_\theta(x_t, c))`, :math:`r = \hat x_0(\epsilon_0(x_t, c^*))`, a discriminator D:

    .. math:: L_D = \operatorname{BCE}(D(r), 0) + \operatorname{BCE}(D(f), 1), \qquad L_G = \operatorname{BCE}(D(f), 0)

    and, for every tensor where it conflicts with the gradient of :math:`L_{pr}` (the diffusion loss on the anchor's
    pictures), the gradient of :math:`L_G` is projected off it.

    Example:
        >>> edit = DoCo().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Wu et al., Unlearning Concepts in Diffusion Model via Concept Domain Correction and Concept Preserving
        Gradient, arXiv:2405.15304.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "doco"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Wu et al., Unlearning Concepts in Diffusion Model via Concept Domain Correction and Concept Preserving "
        "Gradient, arXiv:2405.15304",
        kind="fine-tune",
        needs=("prompts", "anchor", "images"),
        edits="cross-attention keys and values",
        status="stable",
        families={**EVERYWHERE, "flux": ("detach_begin_token=false",)},
    )

    layers: str | list[str] = Field(
        default="all", description="all, skip_ends, a list of attention modules, or a regular expression."
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
    surgery: bool = Field(
        default=True, description="Project the gradient where it conflicts with preservation; false adds the losses."
    )
    fidelity: Literal["paper", "repository"] = Field(
        default="paper",
        description="The projection: the equation, or what the published code computes, which overshoots; and the "
        "discriminator: trained by its own loss, or, as in that code, by the gradient of what deceives it as well.",
    )
    surgery_strength: float = Field(default=1.0, ge=0, description="Lambda of the projection; 1 in the paper.")
    preserve_weight: float = Field(
        default=0.1, ge=0, description="Weight of the diffusion loss without surgery; 0.1 in the paper's code."
    )
    discriminator_lr: float = Field(
        default=1e-4, gt=0, description="Of Adam (0.5, 0.999); 1e-4 for objects, 5e-4 for styles in the paper's code."
    )
    warmup: int = Field(
        default=1000,
        ge=0,
        description="Steps, of all, in which only the discriminator learns; 1000 of 2000 in the code.",
    )
    latest_timestep: int | None = Field(
        default=None,
        ge=1,
        description="Timesteps are below this; null, the paper, for all: near the end the clean latents that a "
        "prediction implies are its error times 14.",
    )
    detach_begin_token: bool = Field(
        default=True, description="No gradient through keys and values of the first token, as in the authors' code."
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="Watched only: preservation is of the anchor.")
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(), description="Rollouts of the held-out retain prompts; guidance is also the pictures'."
    )
    training: TrainSettings = Field(
        default=TrainSettings(
            steps=2000, lr=4.8e-5, batch_size=8, optimizer="adamw", weight_decay=0.01, clip=1.0, drift_limit=None
        ),
        description="2000 steps, warm-up included, of AdamW at 6e-6 times 8 examples in the paper's code.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DoCo:
        no_attention_stop(self.training)
        check_images(self.images)
        if self.warmup >= self.training.steps:
            raise ValueError(
                f"warmup is {self.warmup} of {self.training.steps} training.steps; none are left to forget"
            )
        if self.surgery and self.preserve_weight == 0:
            raise ValueError(
                "surgery needs the gradient of preservation; set preserve_weight above 0 or surgery to false"
            )
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
            selection=select_parameters(backbone.denoiser, layers, ("k", "v")),
            task=lambda material: self._task(material, layers),
            pictures=self.images,
            forget_latents=False,
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, layers: list[str]) -> Task:
        backbone, data = material.backbone, material.data
        prompts = anchored(data.forget_prompts, material.concept, empty=self.empty_anchor, method=self.name)
        latents, index = material.pictures(prompts, self.images)
        anchors, below = material.embeddings(prompts), self.latest_timestep
        source, held = material.noised(latents, index, prompts=len(prompts), below=below)
        channels, height, width = backbone.latent_shape
        network = PatchDiscriminator(
            channels, min(height, width), generator=generator_for(self.training.seed, "discriminator")
        )
        leaky = self.fidelity == "repository"
        adversary = Adversary(network, lr=self.discriminator_lr, device=backbone.device, leaky=leaky)
        forget = material.held_out(held, target=anchors)
        term = AdversarialTerm(
            backbone=backbone,
            source=source,
            embeddings=data.forget_embeddings,
            anchor=LiveAnchor(backbone=backbone, originals=material.originals, embeddings=anchors),
            batch_size=self.training.batch_size,
            adversary=adversary,
            warmup=self.warmup,
        )
        problem = NoiseProblem(
            parameters=material.parameters,
            terms=[term, *self._preservation(material, source, anchors)],
            held_out=material.monitor(forget, data.forget_embeddings),
        )
        rule = ConflictProjection(strength=self.surgery_strength, fidelity=self.fidelity) if self.surgery else None
        during = begin_token_detached(backbone.denoiser, layers) if self.detach_begin_token else nullcontext()
        return Task(problem=problem, rule=rule, companion=adversary, during=during)

    def _preservation(self, material: Material, source: NoisedSource, anchors: Conditioning) -> list[Term]:
        if self.preserve_weight == 0:
            return []
        term = RetainTerm(
            backbone=material.backbone,
            source=source,
            embeddings=anchors,
            batch_size=self.training.batch_size,
            weight=self.preserve_weight,
            name="noise",
        )
        return [AfterWarmup(term=term, warmup=self.warmup)]
