"""ESD: train the prediction for a concept to point away from it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.latents import LatentBank, RolloutPlan
from aizheimer.data.sources import BankSource, StudentRolloutSource
from aizheimer.edits.edit import Edit
from aizheimer.engine.anchor import Anchor, BankAnchor
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.noise_problem import NoiseProblem, TargetTerm
from aizheimer.engine.noise_targets import GuidedAway, LiveGuidance, guided_away
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._material import Material, RetainPlan, Rollout
from aizheimer.methods._trained import Task, learn, no_attention_stop, plan_for
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.groups import select_group


class ESD(BaseModel):
    r"""Train the prediction for the concept's prompts to be what the frozen model's guidance avoids.

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, c),\;
              \epsilon_0(\varnothing) - \eta\,(\epsilon_0(c) - \epsilon_0(\varnothing))\big)

    on latents of rollouts that stop at a random step. The code of 2024 starts the target from
    :math:`\epsilon_0(c_{from})` instead; with :math:`c_{from} = c` the same target needs an :math:`\eta` larger by one.

    Example:
        >>> edit = ESD(group="esd-x").unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Gandikota et al., Erasing Concepts from Diffusion Models, arXiv:2303.07345, eq. 7 and section 4.1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "esd"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Gandikota et al., Erasing Concepts from Diffusion Models, arXiv:2303.07345",
        kind="fine-tune",
        needs=("prompts",),
        edits="a group of the denoiser's weights: cross-attention, all but it, or all",
        status="stable",
        families=EVERYWHERE,
    )

    group: str = Field(
        default="esd-x",
        description="Trained weights: esd-x (cross-attention), esd-x-strict (its keys and values), esd-u (all but it), "
        "esd-all, all as in the code of 2024; xattn, noxattn, selfattn, notime, full as in that of 2023. The paper "
        "takes cross-attention for styles and the rest for objects.",
    )
    convention: Literal["2023", "2024"] = Field(
        default="2023", description="What the target starts from: the empty prompt (the paper) or the prompt itself."
    )
    eta: float = Field(default=1.0, ge=0, description="How far to point away; 1 in the paper, 2 in the code of 2024.")
    erase_from: str = Field(
        default="",
        description="Take the concept out of these words only (the cowboy hat out of a cowboy): the words are trained, "
        "the concept is avoided. Convention 2024; empty for the concept itself.",
    )
    rollout: Rollout = Field(
        default="student",
        description="Whose latents: those of the model being edited (the paper), or of the frozen one (the code of "
        "2024), which are computed once.",
    )
    retain_weight: float = Field(
        default=0.0, ge=0, description="Weight of matching the frozen model on retain prompts; ESD has no such term."
    )
    retain: RetainPlan = Field(default=RetainPlan())
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(forget=40, steps=50, guidance=3.0),
        description="Rollouts; 50 steps under guidance 3 in the paper. Teacher rollouts use all their steps.",
    )
    training: TrainSettings = Field(
        default=TrainSettings(steps=1000, lr=1e-5, batch_size=1, optimizer="adam", clip=None, drift_limit=None),
        description="1000 steps of Adam at 1e-5, one example each, in the paper.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ESD:
        no_attention_stop(self.training)
        if self.erase_from and self.convention != "2024":
            raise ValueError("erase_from needs the target of convention=2024; set it, or leave erase_from empty")
        return self

    @property
    def rolled_out(self) -> RolloutPlan:
        """The rollouts that are made: one in the place of those that nothing is trained on."""
        return plan_for(self.rollouts, retain=self.retain_weight > 0, forget=self.rollout == "teacher")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            SelectorError: If the group is unknown or empty.
        """
        selection = select_group(backbone.denoiser, self.group, layers=backbone.attention_modules())
        if self.erase_from:
            self._words(concept)
        return learn(
            self,
            backbone,
            concept,
            selection=selection,
            task=self._task,
            forget_latents=not self.erase_from,
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material) -> Task:
        backbone, concept = material.backbone, material.data.forget_embeddings
        trained, train_bank, held_bank = self._trained_prompts(material)
        other = concept if self.erase_from else None
        held_target = self._targets(backbone, held_bank, other)
        held = BankSource.of(held_bank, target=held_target, device=backbone.device)
        if self.rollout == "teacher":
            targets = self._targets(backbone, train_bank, other)
            source, target = BankSource.of(train_bank, target=targets, device=backbone.device), BankAnchor()
        else:
            source, target = self._student(material, trained)
        term = TargetTerm(
            backbone=backbone,
            source=source,
            embeddings=trained,
            target=target,
            batch_size=self.training.batch_size,
        )
        problem = NoiseProblem(
            parameters=material.parameters,
            terms=[term, *material.teacher_term(self.retain_weight)],
            held_out=material.monitor(material.held_out(held), trained),
        )
        return Task(problem=problem)

    def _trained_prompts(self, material: Material) -> tuple[Conditioning, LatentBank, LatentBank]:
        """Return the embeddings whose predictions are trained, and the teacher's rollouts of them."""
        if not self.erase_from:
            return (material.data.forget_embeddings, *material.forget_banks())
        prompts = anchor_prompts(material.data.forget_prompts, self._words(material.concept))
        forget = self.rollouts.forget if self.rollout == "teacher" else 1
        return material.rolled_out(prompts, forget + self.rollouts.holdout)

    def _words(self, concept: Concept) -> Concept:
        """Return the concept with the words to erase it from as its anchor, which is how prompts are rewritten."""
        return Concept(concept.target, anchor=self.erase_from, kind=concept.kind)

    def _targets(self, backbone: Backbone, bank: LatentBank, concept: Conditioning | None) -> GuidedAway:
        return guided_away(backbone, bank, eta=self.eta, concept=concept, from_prompt=self.convention == "2024")

    def _student(self, material: Material, trained: Conditioning) -> tuple[StudentRolloutSource, Anchor]:
        data = material.data
        target = LiveGuidance(
            backbone=material.backbone,
            teacher=material.teacher_weights,
            concept=data.forget_embeddings,
            neutral=data.null_embedding,
            eta=self.eta,
            start=trained if self.convention == "2024" else None,
        )
        return material.student_rollouts(trained), target
