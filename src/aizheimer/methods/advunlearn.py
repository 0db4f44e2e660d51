"""AdvUnlearn: train the text encoder to forget a concept while an attacker looks for words that bring it back."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.readers import text_part
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.sources import BankSource, Source
from aizheimer.data.words import LiveEmbeddings, check_room
from aizheimer.edits.edit import Edit
from aizheimer.engine.anchor import Answered
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.noise_problem import NoiseProblem
from aizheimer.engine.noise_targets import CurrentPrediction, LiveGuidance, guided_away
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.engine.text_terms import AttackedTerm
from aizheimer.errors import SelectorError
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, learn, no_attention_stop, plan_for
from aizheimer.methods.base import UNETS, MethodInfo, check_family, joint
from aizheimer.modules.text_encoder import TextPart, select_read
from aizheimer.objectives.prompt_attack import AttackPlan, Fidelity


class AdvUnlearn(BaseModel):
    r"""Train the text encoder on ESD's target under the worst words before the prompt, and hold retain prompts.

    .. math:: \min_E \operatorname{MSE}\big(\epsilon_0(x_t, E(v^* \oplus c)), y\big)
              + \gamma \operatorname{MSE}\big(\epsilon_0(x_t, E(r)), \epsilon_0(x_t, E_0(r))\big), \qquad
              v^* = \arg\min_v \operatorname{MSE}\big(\epsilon_0(x_t, E(v \oplus c)), \epsilon_0(x_t, E_0(c))\big)

    with :math:`y = \epsilon_0(\varnothing) - \eta\,(\epsilon_0(c) - \epsilon_0(\varnothing))`. The denoiser is not
    changed: the edited encoder serves every denoiser that was trained with the same one. Of Stable Diffusion XL's two
    encoders both are :math:`E`, with what they pool, and :math:`v` are words of both.

    Example:
        >>> edit = AdvUnlearn(warmup=20, training={"steps": 60}).unlearn(backbone, Concept("cat"))  # doctest: +SKIP

    References:
        Zhang et al., Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models,
        arXiv:2405.15234.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "advunlearn"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Zhang et al., Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion "
        "Models, arXiv:2405.15234",
        kind="fine-tune",
        needs=("prompts", "retain prompts"),
        edits="the text encoder, or both: all blocks and the last norm",
        status="stable",
        families=UNETS,
        elsewhere=joint("it trains CLIP's text encoders, and T5's words are read here too"),
    )

    eta: float = Field(
        default=1.0, ge=0, description="How far the target points away from the concept; 1 in the paper."
    )
    attack: AttackPlan = Field(
        default=AttackPlan(),
        description="The attacker: one free word before the prompt, 30 steps of Adam at 1e-3 from a random word.",
    )
    warmup: int = Field(default=200, ge=0, description="Steps without an attack; 200 of 1000 in the published code.")
    fidelity: Fidelity = Field(
        default="paper",
        description="The attack: a search that clears its gradient; repository sums gradients over the search and "
        "trains on the words before its last step, as the published code does.",
    )
    blocks: int | None = Field(
        default=None, ge=1, description="Blocks that are trained, from the first; null, the paper's, for all."
    )
    parts: tuple[TextPart, ...] = Field(
        default=("attention", "mlp", "norms"), min_length=1, description="What of each block; all in the paper."
    )
    retain_weight: float = Field(
        default=0.3, ge=0, description="Gamma; 0.3 for nudity in the paper's readme. With 0 everything else goes too."
    )
    retain: RetainPlan = Field(
        default=RetainPlan(batch_size=5), description="Retain prompts, 5 in a step; the paper takes names of things."
    )
    rollout: Literal["bank", "step"] = Field(
        default="bank",
        description="Where latents come from: the frozen model's trajectories, denoised once; step denoises new ones "
        "for every update and every step of the attacker, as the published code does, some steps / 2 guided passes "
        "each. The model that draws them is the same, for the denoiser is not changed.",
    )
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(forget=40, steps=50, guidance=3.0),
        description="The frozen model's rollouts; 50 steps under guidance 3 in the paper. Of a bank, how many.",
    )
    training: TrainSettings = Field(
        default=TrainSettings(steps=1000, lr=1e-5, batch_size=1, optimizer="adam", clip=None, drift_limit=None),
        description="1000 steps of Adam at 1e-5, one example each, in the paper.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> AdvUnlearn:
        no_attention_stop(self.training)
        if self.warmup >= self.training.steps:
            raise ValueError(
                f"warmup is {self.warmup} of {self.training.steps} training.steps; none are left for the attack"
            )
        return self

    @property
    def rolled_out(self) -> RolloutPlan:
        """The rollouts that are made: one in the place of those that nothing is trained on."""
        return plan_for(self.rollouts, retain=self.retain_weight > 0, forget=self.rollout == "bank")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            ConceptError: If the attacker's words do not fit before the prompts.
            SelectorError: If the text encoder has fewer blocks, or the denoiser does not read words.
        """
        check_family(self, backbone)
        if not backbone.attention_modules():
            raise SelectorError(
                "advunlearn: this denoiser has no cross-attention layers, so no word changes what it predicts; wanted "
                "one that reads prompts. Choose a model with cross-attention."
            )
        readers, whole = backbone.text_readers, self.blocks is None
        selection = select_read(readers, blocks=self.blocks, parts=self.parts, final_norm=whole)
        prompts = backbone.world.prompts(concept)
        backbone.token_columns(prompts, concept.target, policy="concept")
        check_room(backbone, prompts, tokens=self.attack.tokens)
        return learn(
            self,
            backbone,
            concept,
            selection=selection,
            part=text_part(backbone),
            task=self._task,
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material) -> Task:
        backbone, device = material.backbone, material.backbone.device
        train, held = material.forget_banks()
        of_bank = partial(BankSource.of, device=device, dtype=backbone.dtype)
        away = partial(guided_away, backbone, eta=self.eta, concept=None, from_prompt=False)
        watched = of_bank(held, target=away(held))
        if self.rollout == "step":
            source, attacked = self._fresh(material)
        else:
            source, attacked = of_bank(train, target=away(train)), of_bank(train, target=train.prediction)
        words = LiveEmbeddings.of(backbone, material.data.forget_prompts)
        term = AttackedTerm(
            backbone=backbone,
            source=source,
            attacked=attacked,
            words=words,
            plan=self.attack,
            fidelity=self.fidelity,
            warmup=self.warmup,
            batch_size=self.training.batch_size,
        )
        problem = NoiseProblem(
            parameters=material.parameters,
            terms=[term, *material.teacher_term(self.retain_weight)],
            held_out=material.monitor(material.held_out(watched), words),
        )
        return Task(problem=problem)

    def _fresh(self, material: Material) -> tuple[Source, Source]:
        """Return new rollouts for every draw, with the targets of the term and of the attacker."""
        backbone, data = material.backbone, material.data
        concept, empty = data.forget_embeddings, data.null_embedding
        away = LiveGuidance(
            backbone=backbone, teacher=nullcontext, concept=concept, neutral=empty, eta=self.eta
        )  # the denoiser is the frozen model's, and so are these words
        rollouts = material.student_rollouts(concept)
        back = CurrentPrediction(backbone=backbone, embeddings=concept)
        return Answered(source=rollouts, anchor=away), Answered(source=rollouts, anchor=back)
