"""AIzheimer: train cross-attention to look away from a concept."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor, anchor_prompts
from aizheimer.data.latents import LatentBank, RolloutPlan, rollout
from aizheimer.data.sources import BankSource, Draw, NoisedSource, RefreshingSource, Source
from aizheimer.edits.edit import Edit
from aizheimer.engine.anchor import Anchor, BankAnchor, LiveAnchor, anchor_predictions
from aizheimer.engine.attention_problem import AttentionProblem, Examples, HeldOut
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import DataError
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, check_images, learn
from aizheimer.methods.base import MethodInfo
from aizheimer.modules.parameters import select_layers, select_parameters, swapped
from aizheimer.objectives import ATTENTION_TERMS

PAPER = "Birben, Dervişoğlu, Külçe: AIzheimer: How was I Drawing?"


class AIzheimer(BaseModel):
    r"""Steer cross-attention away from a concept's tokens while a reconstruction term holds everything else.

    .. math:: L = \lambda_{rec} L_{recon} + \lambda L_{attn} + \lambda_{anc} L_{anchor}

    A step is that of the paper's section III-E: latents (encoded images, or steps of the model's own rollouts), noise,
    both losses from one forward pass, the update, fresh attention maps. The anchor term is ours and off by default.

    Example:
        >>> edit = AIzheimer().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        The AIzheimer paper, equations 4 to 7 and section III-E.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "aizheimer"
    info: ClassVar[MethodInfo] = MethodInfo(paper=PAPER, kind="fine-tune", edits="cross-attention", status="stable")

    loss: Literal["resteering", "distraction", "random_stimulus"] = Field(
        default="distraction", description="The attention loss, equations 4, 5 and 6."
    )
    variant: Literal["paper", "notebook", "mean"] = Field(
        default="mean",
        description="Its normalisation: the equation, what the notebook computed, or ours: size-independent.",
    )
    attention_weight: float = Field(default=1.0, ge=0, description="Lambda of equation 7.")
    layers: str | list[str] = Field(
        default="all", description="all, skip_ends, notebook, a list of attention modules, or a regular expression."
    )
    parts: tuple[Literal["q", "k", "v", "out"], ...] = Field(
        default=("q", "k"),
        min_length=1,
        description="Trained projections. The paper trains all four; attention needs q and k.",
    )
    token_policy: Literal["concept", "concept+eot", "concept+eot+padding", "last"] = Field(
        default="concept",
        description="Which tokens to look away from; last (the notebook's) is a concept's last sub-token.",
    )
    reconstruction: Literal["none", "forget", "retain", "teacher"] = Field(
        default="teacher",
        description="none (the notebook); forget: noise error on the concept's images (the paper); retain: noise "
        "error on pictures of retain prompts; teacher: match the frozen model on retain prompts (ours).",
    )
    reconstruction_weight: float = Field(default=1.0, ge=0, description="Weight of the reconstruction term.")
    anchor_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of matching, on forget prompts, the frozen model under the anchor's words.",
    )
    empty_anchor: EmptyAnchor = Field(
        default="auto",
        description="The anchor's prompt when the concept names none: null is the empty prompt, template the prompt "
        "without the concept's words; auto is null for an object (a prompt every model knows) and template for "
        "a style (which must keep its subject).",
    )
    noise: bool = Field(
        default=True, description="Add noise to the concept's latents; false is the paper's bonus experiment."
    )
    images: str | None = Field(
        default=None,
        description="Folder of the concept's images, generate:N for N pictures the model draws, or null for none.",
    )
    retain_neighbours: int = Field(default=10, ge=0, description="Nearest concepts by text embedding to retain.")
    retain_others: int = Field(default=24, ge=0, description="Random other concepts to retain.")
    retain_general: int = Field(default=8, ge=0, description="Prompts about nothing in particular to retain.")
    retain_batch_size: int = Field(default=8, ge=1, description="Retain examples in a step.")
    rollouts: RolloutPlan = Field(default=RolloutPlan(), description="The frozen model's rollouts.")
    refresh_every: int = Field(
        default=0, ge=0, description="Steps between new retain rollouts; 0 keeps the first ones."
    )
    monitor_examples: int = Field(default=32, ge=1, description="Held-out examples of each kind in a look.")
    training: TrainSettings = Field(default=TrainSettings())

    @model_validator(mode="after")
    def _consistent(self) -> AIzheimer:
        check_images(self.images)
        if self.reconstruction == "forget" and self.images is None:
            raise ValueError("reconstruction=forget needs the concept's images; set images to a folder or generate:N")
        if self.reconstruction == "forget" and not self.noise:
            raise ValueError("reconstruction=forget predicts the added noise; set noise to true")
        return self

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If the concept is not in its own prompts' token window, or there is nothing to retain.
            SelectorError: If layers or parts select nothing.
            DataError: If the images cannot be read.
            TrainingError: If training diverged; with a run folder, the edit of the best state has been saved there.
        """
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        backbone.token_columns(backbone.world.prompts(concept), concept.target, policy=self.token_policy)
        return learn(
            self,
            backbone,
            concept,
            selection=select_parameters(backbone.denoiser, layers, self.parts),
            task=lambda material: Task(problem=_Builder(self, material).problem(layers)),
            images=self.images,
            run=run,
            callbacks=callbacks,
        )

    @property
    def retain(self) -> RetainPlan:
        """What is held and watched, as `learn` reads it."""
        return RetainPlan(
            neighbours=self.retain_neighbours,
            others=self.retain_others,
            general=self.retain_general,
            batch_size=self.retain_batch_size,
            monitor=self.monitor_examples,
        )


class _Builder:
    """Puts the training problem of one concept together while the network still holds its original weights."""

    def __init__(self, method: AIzheimer, material: Material) -> None:
        self.method, self.material = method, material
        self.backbone, self.concept, self.data = material.backbone, material.concept, material.data
        self.originals, self.retain_embeddings = material.originals, material.retain_embeddings
        self.retain_train, self.retain_held = material.retain_banks
        self.forget_train, self.forget_held = (
            material.forget_banks() if self.data.forget_bank is not None else (None, None)
        )

    def problem(self, layers: list[str]) -> AttentionProblem:
        """Return the problem: what is drawn, what it costs, what is watched."""
        method, data = self.method, self.data
        columns = self.backbone.token_columns(data.forget_prompts, self.concept.target, policy=method.token_policy)
        source, anchor = self._forget()
        size = method.training.batch_size
        forget = Examples(source=source, embeddings=data.forget_embeddings, columns=columns.cpu(), batch_size=size)
        term = functools.partial(ATTENTION_TERMS[method.loss], variant=method.variant, tokens=self.backbone.max_tokens)
        return AttentionProblem(
            backbone=self.backbone,
            parameters=self.material.parameters,
            layers=layers,
            term=term,
            attention_weight=method.attention_weight,
            forget=forget,
            retain=self._retain(),
            retain_term=method.reconstruction,
            forget_noise=method.reconstruction == "forget",
            reconstruction_weight=method.reconstruction_weight,
            anchor=anchor,
            anchor_weight=method.anchor_weight,
            held_out=self._held_out(source),
        )

    def _forget(self) -> tuple[Source, Anchor | None]:
        """Return where forget examples come from, and what they should look like instead."""
        data, method, bank = self.data, self.method, self.forget_train
        if bank is not None and method.noise:
            target = self._anchor_targets(bank) if method.anchor_weight else None
            source = BankSource.of(bank, target=target, device=self.backbone.device)
            return source, BankAnchor() if method.anchor_weight else None
        if bank is not None:
            latents, prompt_index = bank.x_0, bank.x_0_prompt_index
        elif data.forget_latents is not None:
            latents, prompt_index = data.forget_latents, data.forget_latents_prompt
        else:
            raise DataError("no latents of the concept; give images, or roll out forget prompts")
        anchor = None
        if method.anchor_weight:
            embeddings = self.backbone.encode_prompts(self._anchor_prompts()).cpu()
            anchor = LiveAnchor(backbone=self.backbone, originals=self.originals, embeddings=embeddings)
        prompts = len(data.forget_prompts)
        source = NoisedSource.of(self.backbone, latents, prompt_index=prompt_index, prompts=prompts, noise=method.noise)
        return source, anchor

    def _anchor_prompts(self) -> list[str]:
        return anchor_prompts(self.data.forget_prompts, self.concept, empty=self.method.empty_anchor)

    def _anchor_targets(self, bank: LatentBank) -> Tensor:
        prompts = self._anchor_prompts()
        if not any(prompts):
            return bank.null_prediction
        draw = Draw(x_t=bank.x_t, t=bank.t, prompt_index=bank.prompt_index)
        return anchor_predictions(self.backbone, draw, embeddings=self.backbone.encode_prompts(prompts).cpu())

    def _retain(self) -> Examples | None:
        method, bank = self.method, self.retain_train
        if method.reconstruction not in ("retain", "teacher"):
            return None
        if method.reconstruction == "retain":
            index, prompts = bank.x_0_prompt_index, len(self.data.retain_embeddings)
            source: Source = NoisedSource.of(self.backbone, bank.x_0, prompt_index=index, prompts=prompts)
        elif method.refresh_every:
            source = RefreshingSource(self._fresh_teacher, method.refresh_every)
        else:
            source = self.material.teacher(bank)
        columns = torch.zeros(self.retain_embeddings.shape[:2], dtype=torch.bool)
        return Examples(
            source=source, embeddings=self.retain_embeddings, columns=columns, batch_size=method.retain_batch_size
        )

    def _fresh_teacher(self, epoch: int) -> BankSource:
        """Return the teacher's rollouts of an epoch; the student is swapped out while they are made."""
        if epoch == 0:
            return self.material.teacher(self.retain_train)
        plan, seed = self.method.rollouts, self.method.training.seed
        count = len(self.data.retain_embeddings)
        with swapped(self.backbone.denoiser, self.originals):
            bank = rollout(
                self.backbone,
                self.data.retain_embeddings,
                null_embedding=self.data.null_embedding,
                prompt_index=(torch.arange(plan.retain) + epoch * plan.retain) % count,
                steps=plan.steps,
                guidance=plan.guidance_or(self.backbone.world.guidance),
                generator=generator_for(seed, "refresh", epoch),
            )
        return self.material.teacher(bank)

    def _held_out(self, source: Source) -> HeldOut:
        count, generator = self.method.monitor_examples, generator_for(self.method.training.seed, "held-out")
        if self.forget_held is not None:
            source = BankSource.of(self.forget_held, target=None, device=self.backbone.device)
            count = min(count, len(self.forget_held))
        forget = source.draw(count, step=0, generator=generator)
        count = min(self.method.monitor_examples, len(self.retain_held))
        retain = self.material.teacher(self.retain_held).draw(count, step=0, generator=generator)
        return HeldOut(forget=forget, retain=retain, retain_embeddings=self.retain_embeddings)
