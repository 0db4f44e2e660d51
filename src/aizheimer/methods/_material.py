"""What a method of the noise-target family builds its training problem from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import Parameter

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone, Part
from aizheimer.backbones.conditioning import Conditioning, joined
from aizheimer.backbones.networks import trained_network
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.cache import TensorCache
from aizheimer.data.latents import LatentBank, RolloutPlan
from aizheimer.data.prepare import ConceptData, picture_latents
from aizheimer.data.retain import RetainSet
from aizheimer.data.sources import BankSource, Draw, NoisedSource, Source, StudentRolloutSource, teacher_source
from aizheimer.data.trajectories import kept_trajectories
from aizheimer.data.words import Embeddings, LiveEmbeddings
from aizheimer.engine.anchor import Anchor, anchor_predictions
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.noise_problem import NoiseMonitor, RetainTerm, baseline_error
from aizheimer.engine.session import Borrowed
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ConceptError
from aizheimer.methods.base import MethodInfo
from aizheimer.modules.parameters import swapped

Rollout = Literal["student", "teacher"]
"""Whose latents on the way from noise a method trains on; see `Material.forget_rollouts`."""
AnchorChoice = Literal["refuse", "auto", "null", "template"]
"""What a method that needs an anchor does when the concept names none; all but ``refuse`` are `EmptyAnchor`'s."""


def anchored(
    prompts: Sequence[str], concept: Concept, *, empty: AnchorChoice, method: str, instead: str = ""
) -> list[str]:
    """Return each prompt with the anchor in the concept's place.

    Args:
        prompts: Forget prompts.
        concept: Names target and anchor.
        empty: What to do when it names no anchor.
        method: The method's name, for the message.
        instead: What else the user may do, for the message.

    Raises:
        ConceptError: If there is no anchor and ``empty`` is ``"refuse"``.
    """
    if empty == "refuse":
        if not concept.anchor:
            raise ConceptError(
                f"{method} needs an anchor, what is drawn in the place of '{concept.target}', and got none; name one "
                f"with --anchor, or set empty_anchor to null (the empty prompt), template or auto{instead}"
            )
        empty = "auto"
    return anchor_prompts(prompts, concept, empty=empty)


class RetainPlan(BaseModel):
    """Which other concepts are held or watched.

    Example:
        >>> RetainPlan(neighbours=2).batch_size
        8
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    neighbours: int = Field(default=10, ge=0, description="Nearest concepts by text embedding.")
    others: int = Field(default=24, ge=0, description="Random other concepts.")
    general: int = Field(default=8, ge=0, description="Prompts about nothing in particular.")
    batch_size: int = Field(default=8, ge=1, description="Retain examples in a step.")
    monitor: int = Field(default=32, ge=1, description="Held-out examples of each kind in a look.")


class TrainedMethod(Protocol):
    """What `learn` reads of a method."""

    name: ClassVar[str]
    info: ClassVar[MethodInfo]

    @property
    def retain(self) -> RetainPlan:
        """What is held or watched."""
        ...

    @property
    def rollouts(self) -> RolloutPlan:
        """The frozen model's rollouts."""
        ...

    @property
    def training(self) -> TrainSettings:
        """The loop's hyper-parameters."""
        ...

    def model_dump(self, *, mode: str = "python", exclude: set[str] | None = None) -> dict[str, Any]:
        """Return the hyper-parameters."""
        ...


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a method builds its task from, while the network still holds its original weights.

    Args:
        method: The method.
        backbone: The model.
        concept: What to forget.
        data: Prompts, embeddings and latents.
        retained: What is held or watched.
        cache: Where tensors are cached.
        callbacks: Told about preparations.
        weights: The selected parameters, and copies of their values.
        part: What they are of.
    """

    method: TrainedMethod
    backbone: Backbone
    concept: Concept
    data: ConceptData
    retained: RetainSet
    cache: Path | None
    callbacks: Callbacks
    weights: Borrowed
    part: Part = "unet"

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The selected parameters."""
        return self.weights.parameters

    @property
    def originals(self) -> dict[str, Tensor]:
        """Copies of their original values."""
        return self.weights.originals

    @property
    def retain_embeddings(self) -> Conditioning:
        """The retain prompts, encoded; the empty prompt is the last row: guidance needs it to stay as well."""
        return joined([self.data.retain_embeddings, self.data.null_embedding])

    def words(self, prompts: Sequence[str]) -> Embeddings:
        """Return prompts as what learns makes the denoiser read them: live if it is a text encoder."""
        if self.part != "unet":
            return LiveEmbeddings.of(self.backbone, prompts)
        return self.embeddings(prompts)

    @property
    def retain_words(self) -> Embeddings:
        """`retain_embeddings`, live if a text encoder is what learns."""
        if self.part != "unet":
            return self.words([*self.data.retain_prompts, ""])
        return self.retain_embeddings

    @property
    def retain_banks(self) -> tuple[LatentBank, LatentBank]:
        """The teacher's retain rollouts: to train on, and held out."""
        return self.data.retain_bank.split(self.method.rollouts.holdout)

    def forget_banks(self) -> tuple[LatentBank, LatentBank]:
        """Return the teacher's forget rollouts: to train on, and held out."""
        if self.data.forget_bank is None:
            raise ValueError("this method starts from images: it has no bank of forget rollouts")
        return self.data.forget_bank.split(self.method.rollouts.holdout)

    def embeddings(self, prompts: Sequence[str]) -> Conditioning:
        """Return encoded prompts, on the CPU."""
        return self.backbone.condition(list(prompts)).cpu()

    def pictures(self, prompts: Sequence[str], images: str) -> tuple[Tensor, Tensor | None]:
        """Return clean latents of pictures, and the prompt of each; see `aizheimer.data.prepare.picture_latents`."""
        callbacks = self.callbacks
        return picture_latents(
            self.backbone,
            prompts,
            images=images,
            seed=self.method.training.seed,
            cache_dir=self.cache,
            plan=self.method.rollouts,
            progress=callbacks.on_progress,
        )

    def noised_forget(self) -> tuple[NoisedSource, NoisedSource]:
        """Return the concept's pictures as training inputs, and held out; see `noised`."""
        data = self.data
        if data.forget_latents is None:
            raise ValueError(f"{self.method.name} starts from images: images cannot be null")
        return self.noised(data.forget_latents, data.forget_latents_prompt, prompts=len(data.forget_prompts))

    def noised(
        self, latents: Tensor, index: Tensor | None, *, prompts: int, below: int | None = None
    ) -> tuple[NoisedSource, NoisedSource]:
        """Return clean latents as training inputs: those to train on, and some held out while there are enough.

        Args:
            latents: (images, channels, height, width).
            index: (images,) their prompts; None to draw one of ``prompts`` each time.
            prompts: Number of prompts.
            below: Timesteps are below this; None for all.
        """
        held = min(self.method.rollouts.holdout, len(latents) // 4)
        edge = len(latents) - held
        train, rest = slice(0, edge), slice(edge if held else 0, len(latents))
        first, second = (
            NoisedSource.of(
                self.backbone,
                latents[rows],
                prompt_index=None if index is None else index[rows],
                prompts=prompts,
                below=below,
            )
            for rows in (train, rest)
        )
        return first, second

    def teacher_weights(self) -> AbstractContextManager[None]:
        """Run what learns with its original weights for the length of a ``with`` block."""
        return swapped(trained_network(self.backbone.networks, self.part), self.originals)

    def student_rollouts(self, embeddings: Conditioning) -> StudentRolloutSource:
        """Return latents that the model draws as it is at the time, for encoded prompts."""
        plan = self.method.rollouts
        return StudentRolloutSource(
            backbone=self.backbone,
            embeddings=embeddings,
            null_embedding=self.data.null_embedding,
            steps=plan.steps,
            guidance=plan.guidance_or(self.backbone.world.guidance),
        )

    def forget_rollouts(self, rollout: Rollout, prompts: Sequence[str], embeddings: Conditioning) -> Source:
        """Return latents on the way from noise to a picture, each stopped at a random step.

        ``"student"``: the model draws them anew for every update, as it is at the time: some ``steps / 2`` guided
        passes for each example. ``"teacher"``: they are drawn from trajectories of the frozen model that were denoised
        once, and an update costs none.

        Args:
            rollout: Whose.
            prompts: The prompts.
            embeddings: The same, encoded; the draws' ``prompt_index`` counts in them.
        """
        if rollout == "student":
            return self.student_rollouts(embeddings)
        if list(prompts) == self.data.forget_prompts:
            bank, _ = self.forget_banks()
        else:
            _, bank, _ = self.rolled_out(prompts, self.method.rollouts.forget + self.method.rollouts.holdout)
        return BankSource.of(bank, target=None, device=self.backbone.device, dtype=self.backbone.dtype)

    def held_out(self, source: Source, *, target: Conditioning | None = None) -> Draw:
        """Return the held-out forget examples; with the frozen model's predictions under other words as targets.

        Args:
            source: Where they come from.
            target: The other words, encoded; None keeps the source's targets.
        """
        generator = generator_for(self.method.training.seed, "held-out forget")
        draw = source.draw(self.method.retain.monitor, step=0, generator=generator)
        if target is None:
            return draw
        predictions = anchor_predictions(self.backbone, draw, embeddings=target)
        return replace(draw, target=predictions.to(draw.x_t.device))

    def held_out_towards(self, target: Anchor) -> Draw:
        """Return the held-out steps of the frozen model's forget rollouts, with what the prediction should become.

        Args:
            target: Asked once; the network still has to be the frozen one.
        """
        draw = self.held_out(BankSource.of(self.forget_banks()[1], target=None, device=self.backbone.device))
        return replace(draw, target=target.predict(draw))

    def rolled_out(self, prompts: Sequence[str], count: int) -> tuple[Conditioning, LatentBank, LatentBank]:
        """Roll the frozen model out on other prompts.

        Args:
            prompts: The prompts, in turn.
            count: Trajectories, held-out ones included.

        Returns:
            The prompts' embeddings, the rollouts to train on, and those held out.
        """
        embeddings = self.embeddings(prompts)
        bank = kept_trajectories(
            self.backbone,
            embeddings,
            null_embedding=self.data.null_embedding,
            prompt_index=torch.arange(count) % len(prompts),
            plan=self.method.rollouts,
            name="other prompts",
            seed=self.method.training.seed,
            cache=TensorCache(self.cache),
            progress=lambda done, total: self.callbacks.on_progress("other prompts", done, total),
        )
        return (embeddings, *bank.split(self.method.rollouts.holdout))

    def teacher_term(self, weight: float) -> list[RetainTerm]:
        """Return the term that holds retain prompts to the frozen model; none at weight 0."""
        if weight == 0:
            return []
        term = RetainTerm(
            backbone=self.backbone,
            source=self.teacher(self.retain_banks[0]),
            embeddings=self.retain_words,
            batch_size=self.method.retain.batch_size,
            weight=weight,
        )
        return [term]

    def held_out_retain(self) -> Draw:
        """Return the retain examples that are only watched."""
        source = self.teacher(self.retain_banks[1])
        count = min(self.method.retain.monitor, len(self.retain_banks[1]))
        return source.draw(count, step=0, generator=generator_for(self.method.training.seed, "held-out retain"))

    def monitor(self, forget: Draw, embeddings: Embeddings) -> NoiseMonitor:
        """Return the held-out set with these forget examples; their targets are what the prediction should become."""
        return NoiseMonitor(
            backbone=self.backbone,
            forget=forget,
            forget_embeddings=embeddings,
            baseline=baseline_error(self.backbone, forget, embeddings),
            retain=self.held_out_retain(),
            retain_embeddings=self.retain_words,
        )

    def teacher(self, bank: LatentBank) -> BankSource:
        """Return a bank's entries with the frozen model's predictions, some under the empty prompt."""
        null = len(self.data.retain_embeddings)
        return teacher_source(bank, null_index=null, device=self.backbone.device, dtype=self.backbone.dtype)
