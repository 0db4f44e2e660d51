"""SPM: one-dimensional adapters that each prompt gets as far as it is about the concept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.latents import RolloutPlan
from aizheimer.edits.edit import Edit
from aizheimer.edits.hooks.spm import Fidelity, GateKind, SPMHook
from aizheimer.engine.anchoring_term import AnchoredTerm
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.noise_problem import NoiseProblem, TargetTerm
from aizheimer.engine.noise_targets import LiveGuidance
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._material import Material, RetainPlan, Rollout
from aizheimer.methods._trained import Task, learn, no_attention_stop, plan_for
from aizheimer.methods.base import UNETS, MethodInfo, check_family, joint
from aizheimer.modules.adapters import Adapters, LowRank, transformer_projections


class SPM(BaseModel):
    r"""Train adapters of rank one towards negative guidance, hold them still elsewhere, and gate them by the prompt.

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, c),\;
              \epsilon_0(n) - \eta\,(\epsilon_0(c) - \epsilon_0(n))\big)
              + \lambda\,\operatorname{MSE}\big(\epsilon_\theta(x_t, a),\; \epsilon_0(x_t, a)\big)

    on rollouts of the edited model; n is the concept's anchor, or the empty prompt, and a are random embeddings (latent
    anchoring). While drawing, :math:`W' = W + \gamma\, u d^\top` with :math:`\gamma` by how much the prompt is about
    the concept (facilitated transport): see `aizheimer.edits.hooks.spm.SPMHook`. Edits of several concepts add up.

    Example:
        >>> edit = SPM(also=("Father Christmas",)).unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Lyu et al., One-dimensional Adapter to Rule Them All: Concepts, Diffusion Models and Erasing Applications,
        arXiv:2312.16145, sections 3.1 to 3.3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "spm"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Lyu et al., One-dimensional Adapter to Rule Them All, arXiv:2312.16145",
        kind="fine-tune",
        needs=("prompts",),
        edits="adapters on every projection of the denoiser's transformers, gated by the prompt",
        families=UNETS,
        elsewhere=joint("its adapters and its gate are those of a UNet"),
        status="stable",
    )

    rank: int = Field(default=1, ge=1, description="Rank of the adapters; 1 in the paper.")
    eta: float = Field(default=1.0, ge=0, description="How far the target points away; 1 in the paper.")
    also: tuple[str, ...] = Field(
        default=(), description="Other words of the same SPM: trained in turn with the concept, and they open the gate."
    )
    anchors: int = Field(default=4, ge=0, description="Random embeddings for each latent; 4 in the paper.")
    null_anchors: int = Field(
        default=0,
        ge=0,
        description="Copies of the empty prompt held beside them: none in the paper. The published code means to hold "
        "4 random embeddings and, by a slip of indices, holds 2 and the empty prompt twice: anchors=2, null_anchors=2.",
    )
    anchor_weight: float = Field(default=1000.0, ge=0, description="Lambda of latent anchoring; 1000 in the paper.")
    gate: GateKind = Field(
        default="both",
        description="What opens the gate: both (the larger of the cosine of the embeddings and the share of the "
        "concept's tokens in the prompt), embedding, tokens, or none: every prompt, so that weights can hold the edit.",
    )
    fidelity: Fidelity = Field(
        default="paper",
        description="What the gate multiplies: the change (the paper), or, as in the published code, both its factors, "
        "so that a prompt gets the square of its share.",
    )
    rollout: Rollout = Field(
        default="student",
        description="Whose latents: those of the model being edited (the paper), or of the frozen one, which are "
        "computed once: an update costs no rollout.",
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="Only watched: latent anchoring retains.")
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(forget=40, retain=1, steps=30, guidance=3.0),
        description="Rollouts: 30 steps under guidance 3 in the paper. Those of the edited model need no number.",
    )
    training: TrainSettings = Field(
        default=TrainSettings(
            steps=3000,
            lr=1e-4,
            schedule="cosine",
            warmup=500,
            batch_size=1,
            optimizer="adamw",
            weight_decay=0.01,
            clip=None,
            drift_limit=None,
        ),
        description="3000 steps of AdamW at 1e-4, 500 of warm-up, one example each, in the paper, whose cosine starts "
        "again three times; here it falls once.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> SPM:
        no_attention_stop(self.training)
        if any(not words.split() for words in self.also):
            raise ValueError("also has an empty entry, which no prompt is about; leave it out")
        return self

    @property
    def rolled_out(self) -> RolloutPlan:
        """The rollouts that are made; with ``also``, of other prompts than the concept's own."""
        return plan_for(self.rollouts, retain=False, forget=self.rollout == "teacher")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            ConceptError: If a word of ``also`` is cut off in its own prompts.
            SelectorError: If the denoiser has no transformers.
        """
        check_family(self, backbone)
        for words in self.also:
            backbone.token_columns(self._prompts(backbone, concept, words), words, policy="concept")
        projections = transformer_projections(backbone.denoiser)
        return learn(
            self,
            backbone,
            concept,
            layers=list(backbone.attention_modules()),
            task=lambda material: self._task(material, projections),
            plan=plan_for(self.rollouts, retain=False, forget=self.rollout == "teacher" and not self.also),
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, projections: Mapping[str, nn.Linear | nn.Conv2d]) -> Task:
        backbone, data = material.backbone, material.data
        generator = generator_for(self.training.seed, "adapters")
        adapters = Adapters(
            backbone.denoiser,
            {name: LowRank.new(module, rank=self.rank, generator=generator) for name, module in projections.items()},
        )
        prompts, trained, neutral = self._words(material)
        away = LiveGuidance(backbone=backbone, teacher=adapters.off, concept=trained, neutral=neutral, eta=self.eta)
        target = TargetTerm(
            backbone=backbone,
            source=material.forget_rollouts(self.rollout, prompts, trained),
            embeddings=trained,
            target=away,
            batch_size=self.training.batch_size,
        )
        term = AnchoredTerm(
            target=target,
            teacher=adapters.off,
            null_embedding=data.null_embedding,
            anchors=self.anchors,
            null_anchors=self.null_anchors,
            weight=self.anchor_weight,
        )
        problem = NoiseProblem(
            parameters=adapters.parameters,
            terms=[term],
            held_out=material.monitor(material.held_out_towards(away), data.forget_embeddings),
        )

        def hook(tensors: Mapping[str, Tensor]) -> SPMHook:
            words = (material.concept.target, *self.also)
            return SPMHook(adapters=tensors, words=words, gate=self.gate, fidelity=self.fidelity)

        return Task(problem=problem, during=adapters.active(), hook=hook)

    def _words(self, material: Material) -> tuple[list[str], Conditioning, Conditioning]:
        """Return the trained prompts, the concept's own first, and embeddings of them and of neutral ones."""
        concept = material.concept
        prompts = list(material.data.forget_prompts)
        neutral = anchor_prompts(prompts, concept, empty="null")
        for words in self.also:
            own = self._prompts(material.backbone, concept, words)
            prompts += own
            neutral += anchor_prompts(own, Concept(words, anchor=concept.anchor), empty="null")
        return prompts, material.embeddings(prompts), material.embeddings(neutral)

    def _prompts(self, backbone: Backbone, concept: Concept, words: str) -> list[str]:
        return backbone.world.prompts(backbone.world.beside(words, concept))
