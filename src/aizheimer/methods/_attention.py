"""How the AIzheimer method's training problem is put together."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import torch
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.latents import LatentBank, rollout
from aizheimer.data.sources import BankSource, Draw, NoisedSource, RefreshingSource, Source
from aizheimer.engine.anchor import Anchor, BankAnchor, LiveAnchor, anchor_predictions
from aizheimer.engine.attention_problem import AttentionProblem, Examples, HeldOut
from aizheimer.errors import DataError
from aizheimer.methods._material import Material, TrainedMethod
from aizheimer.modules.parameters import swapped
from aizheimer.objectives import ATTENTION_TERMS


class _AttentionMethod(TrainedMethod, Protocol):
    """What is read of the method; its fields are described there."""

    loss: Any
    variant: Any
    attention_weight: Any
    token_policy: Any
    reconstruction: Any
    reconstruction_weight: Any
    anchor_weight: Any
    empty_anchor: Any
    noise: Any
    retain_batch_size: Any
    refresh_every: Any
    monitor_examples: Any


class AttentionBuilder:
    """Puts the training problem of one concept together while the network still holds its original weights."""

    def __init__(self, method: _AttentionMethod, material: Material) -> None:
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
        term = functools.partial(
            ATTENTION_TERMS[method.loss], variant=method.variant, tokens=self.backbone.attended_keys
        )
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
            embeddings = self.backbone.condition(self._anchor_prompts()).cpu()
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
        return anchor_predictions(self.backbone, draw, embeddings=self.backbone.condition(prompts).cpu())

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
        columns = torch.zeros(len(self.retain_embeddings), self.backbone.max_tokens, dtype=torch.bool)
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
