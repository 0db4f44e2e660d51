"""How the AIzheimer method's training problem is put together."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.conditioning import Conditioning, Conditions
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.cache import TensorCache
from aizheimer.data.latents import LatentBank, rollout
from aizheimer.data.query_bank import BankPlan, kept_queries
from aizheimer.data.sources import BankSource, Draw, NoisedSource, RefreshingSource, Source
from aizheimer.engine.anchor import Anchor, BankAnchor, LiveAnchor, anchor_predictions
from aizheimer.engine.attention_problem import AttentionProblem, Examples, HeldOut, MapsTerm
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.loop import train
from aizheimer.engine.query_problem import KeptExamples, QueryProblem, query_recorder
from aizheimer.engine.settings import TrainSettings
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


def warmed(
    problem: QueryProblem, settings: TrainSettings, *, begin: Mapping[str, Tensor], callbacks: Callbacks
) -> dict[str, Tensor]:
    """Train on kept queries, and return the changes for other training to begin from; the parameters stay as they were.

    Args:
        problem: What is trained.
        settings: For how long, and how.
        begin: Changes that this training begins from itself.
        callbacks: Told of its steps as progress, and asked whether to stop.
    """
    quiet = Callbacks(
        on_step=lambda row: callbacks.on_progress("steps on the bank", row["step"], row["steps"]),
        should_stop=callbacks.should_stop,
    )
    try:
        found = train(problem, settings, begin=begin, callbacks=quiet).tensors
    finally:
        with torch.no_grad():
            for name, parameter in problem.parameters.items():
                parameter.copy_(problem.originals[name])
    return {name: tensor - problem.originals[name] for name, tensor in found.items()}


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
        return AttentionProblem(
            backbone=self.backbone,
            parameters=self.material.parameters,
            layers=layers,
            term=self._term(),
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

    def query_problem(self, layers: list[str], plan: BankPlan) -> QueryProblem:
        """Return the same problem layer by layer, on queries of the frozen network; its keys and values are trained.

        Args:
            layers: Cross-attention layers.
            plan: How many queries are kept.
        """
        method, data, material = self.method, self.data, self.material
        source = self._forget_source()
        held = self._held_out(source)
        columns = self.backbone.token_columns(data.forget_prompts, self.concept.target, policy=method.token_policy)
        count = plan.forget if self.forget_train is None else min(plan.forget, len(self.forget_train))
        forget = source.draw(count, step=0, generator=self._generator("bank forget"))
        kept = functools.partial(
            self._kept, layers=layers, plan=plan, embeddings=data.forget_embeddings, columns=columns.cpu()
        )
        forget_examples = kept("forget queries", forget, batch_size=method.training.batch_size)
        held_forget = kept("held-out queries", held.forget)
        plain = torch.zeros(len(self.retain_embeddings), self.backbone.max_tokens, dtype=torch.bool)
        kept = functools.partial(self._kept, layers=layers, plan=plan, embeddings=self.retain_embeddings, columns=plain)
        retain = None
        if method.reconstruction == "teacher" and method.reconstruction_weight:
            teacher = material.teacher(self.retain_train)
            rest = teacher.draw(min(plan.retain, len(teacher.t)), step=0, generator=self._generator("bank retain"))
            retain = kept("retain queries", rest, batch_size=method.retain_batch_size)
        chosen = tuple(f"{name}." for name in self.backbone.text_projections(layers, ("k", "v")))
        return QueryProblem(
            backbone=self.backbone,
            parameters={name: value for name, value in material.parameters.items() if name.startswith(chosen)},
            originals={name: value for name, value in self.originals.items() if name.startswith(chosen)},
            layers=layers,
            term=self._term(),
            attention_weight=method.attention_weight,
            forget=forget_examples,
            retain=retain,
            retain_weight=method.reconstruction_weight,
            anchor=self._anchor_embeddings() if method.anchor_weight else None,
            anchor_weight=method.anchor_weight,
            held_out=(held_forget, kept("held-out queries", held.retain)),
        )

    def _kept(
        self,
        stage: str,
        draw: Draw,
        *,
        layers: list[str],
        plan: BankPlan,
        embeddings: Conditions,
        columns: Tensor,
        batch_size: int = 1,
    ) -> KeptExamples:
        queries = kept_queries(
            self.backbone,
            draw,
            conditions=embeddings,
            layers=layers,
            record=query_recorder(self.backbone, layers),
            plan=plan,
            cache=TensorCache(self.material.cache),
            progress=lambda done, total: self.material.callbacks.on_progress(stage, done, total),
        )
        return KeptExamples(queries=queries, embeddings=embeddings, columns=columns, batch_size=batch_size)

    def _generator(self, name: str) -> torch.Generator:
        return generator_for(self.method.training.seed, name)

    def _term(self) -> MapsTerm:
        method = self.method
        return functools.partial(
            ATTENTION_TERMS[method.loss], variant=method.variant, tokens=self.backbone.attended_keys
        )

    def _forget(self) -> tuple[Source, Anchor | None]:
        """Return where forget examples come from, and what they should look like instead."""
        method, bank = self.method, self.forget_train
        if not method.anchor_weight:
            return self._forget_source(), None
        if bank is not None and method.noise:
            return self._forget_source(self._anchor_targets(bank)), BankAnchor()
        anchor = LiveAnchor(backbone=self.backbone, originals=self.originals, embeddings=self._anchor_embeddings())
        return self._forget_source(), anchor

    def _forget_source(self, target: Tensor | None = None) -> Source:
        """Return where forget examples come from; rollouts take targets along."""
        data, method, bank = self.data, self.method, self.forget_train
        if bank is not None and method.noise:
            return BankSource.of(bank, target=target, device=self.backbone.device)
        if bank is not None:
            latents, prompt_index = bank.x_0, bank.x_0_prompt_index
        elif data.forget_latents is not None:
            latents, prompt_index = data.forget_latents, data.forget_latents_prompt
        else:
            raise DataError("no latents of the concept; give images, or roll out forget prompts")
        prompts = len(data.forget_prompts)
        return NoisedSource.of(self.backbone, latents, prompt_index=prompt_index, prompts=prompts, noise=method.noise)

    def _anchor_prompts(self) -> list[str]:
        return anchor_prompts(self.data.forget_prompts, self.concept, empty=self.method.empty_anchor)

    def _anchor_embeddings(self) -> Conditioning:
        return self.backbone.condition(self._anchor_prompts()).cpu()

    def _anchor_targets(self, bank: LatentBank) -> Tensor:
        prompts = self._anchor_prompts()
        if not any(prompts):
            return bank.null_prediction
        draw = Draw(x_t=bank.x_t, t=bank.t, prompt_index=bank.prompt_index)
        return anchor_predictions(self.backbone, draw, embeddings=self.backbone.condition(prompts).cpu())

    def _retain(self) -> Examples | None:
        method, bank = self.method, self.retain_train
        if method.reconstruction not in ("retain", "teacher") or not method.reconstruction_weight:
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
