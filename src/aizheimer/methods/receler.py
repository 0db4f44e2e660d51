"""Receler: light erasers after cross-attention, trained against an attacked prompt, where the concept is."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.rows import places
from aizheimer.edits.edit import Edit
from aizheimer.edits.hooks.erasers import ErasersHook
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.eraser_term import EraserTerm
from aizheimer.engine.noise_problem import NoiseProblem
from aizheimer.engine.noise_targets import LiveGuidance
from aizheimer.engine.prompt_adversary import PromptAdversary
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ConceptError
from aizheimer.methods._material import Material, RetainPlan, Rollout
from aizheimer.methods._trained import Task, learn, no_attention_stop, plan_for
from aizheimer.methods.base import UNETS, MethodInfo, check_family, joint
from aizheimer.modules.adapters import Adapters, Bottleneck
from aizheimer.modules.parameters import select_layers


class Receler(BaseModel):
    r"""Train small networks that take the concept out of what cross-attention says, whatever the prompt tries.

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, [c, v]),\;
              \epsilon_0(\varnothing) - \eta\,(\epsilon_0(c) - \epsilon_0(\varnothing))\big) + \lambda R

    on rollouts of the edited model. The vectors v after the prompt's words are an adversary that looks for
    :math:`\epsilon_0(x_t, c)` before every step; R is what the erasers add outside of where the frozen model attends to
    the concept. The edit cannot be merged into weights.

    Example:
        >>> edit = Receler().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Huang et al., Receler: Reliable Concept Erasing of Text-to-Image Diffusion Models via Lightweight Erasers,
        arXiv:2311.17717, sections 3.2 to 3.4.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "receler"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Huang et al., Receler: Reliable Concept Erasing via Lightweight Erasers, arXiv:2311.17717",
        kind="fine-tune",
        needs=("prompts",),
        edits="erasers after cross-attention",
        families=UNETS,
        elsewhere=joint("its erasers follow cross-attention, whose output is the picture's alone"),
        status="stable",
    )

    width: int = Field(default=128, ge=1, description="Width of an eraser's bottleneck; 128 in the paper.")
    layers: str | list[str] = Field(
        default="all", description="all, skip_ends, a list of attention modules, or a regular expression."
    )
    eta: float = Field(default=1.0, ge=0, description="How far the target points away; 1 in the paper.")
    attack_steps: int = Field(
        default=50, ge=0, description="Steps of the adversary before each of the erasers; 50 in the paper, 0 for none."
    )
    attack_tokens: int = Field(
        default=16, ge=1, description="The adversary's vectors, written over the padding after the prompt; the paper's."
    )
    attack_lr: float = Field(default=0.1, gt=0, description="Its Adam's rate; 0.1 in the published code.")
    attack_decay: float = Field(default=0.1, ge=0, description="Its weight decay; 0.1 in the published code.")
    outside_weight: float = Field(default=0.1, ge=0, description="Lambda of the localised regularisation; the paper's.")
    mask_threshold: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Scaled attention from which on a place counts as the concept; the paper's.",
    )
    mask_shrink: int = Field(
        default=4,
        ge=1,
        description="How many times smaller than the latents the attention is that makes the mask; 4 in the paper "
        "(16 of 64 cells).",
    )
    rollout: Rollout = Field(
        default="student",
        description="Whose latents: those of the model being edited (the paper), or of the frozen one, which are "
        "computed once: an update costs no rollout.",
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="Only watched: the mask retains.")
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(forget=40, retain=1, steps=50, guidance=3.0),
        description="Rollouts: 50 steps under guidance 3 in the paper. Those of the edited model need no number.",
    )
    training: TrainSettings = Field(
        default=TrainSettings(steps=500, lr=3e-4, batch_size=1, optimizer="adam", clip=None, drift_limit=None),
        description="500 steps of Adam at 3e-4, one example each, in the published code.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Receler:
        no_attention_stop(self.training)
        return self

    @property
    def rolled_out(self) -> RolloutPlan:
        """The rollouts that are made: one in the place of those that nothing is trained on."""
        return plan_for(self.rollouts, retain=False, forget=self.rollout == "teacher")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            ConceptError: If the adversary's vectors do not fit after a prompt.
            InputError: If no cross-attention has the mask's resolution.
            SelectorError: If layers selects nothing.
        """
        check_family(self, backbone)
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        if self.attack_steps:
            self._check_room(backbone, concept)
        return learn(
            self,
            backbone,
            concept,
            layers=layers,
            task=lambda material: self._task(material, layers),
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, layers: list[str]) -> Task:
        backbone, data = material.backbone, material.data
        ends = torch.tensor([place.eot for place in places(backbone, data.forget_prompts, words="")])
        adapters = self._erasers(material, layers)
        attack = self._attack(material) if self.attack_steps else None
        away = LiveGuidance(
            backbone=backbone,
            teacher=adapters.off,
            concept=data.forget_embeddings,
            neutral=data.null_embedding,
            eta=self.eta,
        )
        term = EraserTerm(
            backbone=backbone,
            adapters=adapters,
            source=material.forget_rollouts(self.rollout, data.forget_prompts, data.forget_embeddings),
            embeddings=data.forget_embeddings,
            columns=backbone.token_columns(data.forget_prompts, material.concept.target, policy="concept"),
            ends=ends,
            null_embedding=data.null_embedding,
            eta=self.eta,
            batch_size=self.training.batch_size,
            attack=attack,
            mask_shrink=self.mask_shrink,
            mask_threshold=self.mask_threshold,
            weight=self.outside_weight,
        )
        problem = NoiseProblem(
            parameters=adapters.parameters,
            terms=[term],
            held_out=material.monitor(material.held_out_towards(away), data.forget_embeddings),
        )
        return Task(
            problem=problem, companion=attack, during=adapters.active(), hook=lambda tensors: ErasersHook(tensors)
        )

    def _erasers(self, material: Material, layers: list[str]) -> Adapters:
        generator, denoiser = generator_for(self.training.seed, "erasers"), material.backbone.denoiser
        made = {}
        for layer in layers:
            weight = denoiser.get_parameter(f"{layer}.to_out.0.weight")
            made[layer] = Bottleneck.new(weight, channels=len(weight), width=self.width, generator=generator)
        return Adapters(denoiser, made)

    def _check_room(self, backbone: Backbone, concept: Concept) -> None:
        found = places(backbone, backbone.world.prompts(concept), words=concept.target)
        room = backbone.max_tokens - max(place.eot for place in found)
        if self.attack_tokens > room:
            raise ConceptError(
                f"receler: {self.attack_tokens} adversarial vectors do not fit after the prompts of "
                f"'{concept.target}', which leave {room} of {backbone.max_tokens} tokens; "
                f"set attack_tokens={room} or less"
            )

    def _attack(self, material: Material) -> PromptAdversary:
        return PromptAdversary(
            self.attack_tokens,
            material.data.forget_embeddings.tokens.shape[2],
            steps=self.attack_steps,
            lr=self.attack_lr,
            weight_decay=self.attack_decay,
            generator=generator_for(self.training.seed, "attack"),
            device=material.backbone.device,
        )
