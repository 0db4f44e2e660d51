"""Teach the edited model the concept again from a few pictures, and count the steps that takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import Parameter

from aizheimer._seeding import generator_for
from aizheimer.attacks._starts import given_pictures, latents_of
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions, as_conditioning
from aizheimer.data.images import read_images
from aizheimer.data.sources import Draw, NoisedSource
from aizheimer.errors import TrainingError
from aizheimer.evaluation.generate import image_size
from aizheimer.modules.adapters import Adapters, LowRank, transformer_projections
from aizheimer.modules.parameters import ParameterSelection, select_parameters, swapped, trainable

Weights = Literal["lora", "cross-attention", "full"]

RATES: dict[str, float] = {"lora": 1e-3, "cross-attention": 1e-4, "full": 3e-5}
"""Learning rate by what is trained."""

FIRST_SEED = 30_000
"""Of the pictures that are learned from: others than those that decide."""


class Relearn(BaseModel):
    r"""Fine-tune the edited model on pictures of the concept with its own loss, and look at it on the way.

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, c),\; \epsilon\big), \qquad
              x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon

    with each picture's own prompt c and t uniform; the target is velocity or :math:`x_0` where the model predicts that.
    An edit that acts while pictures are drawn stays on: what is trained lies under it.

    ``steps_to_recover`` is the first look at which the target is back in ``recovered`` of the unedited model's rate. A
    model that has forgotten needs as many as one that never knew; one that conceals needs a few. The random control
    learns from as many pictures of another concept: what returns then was never far.

    Example:
        >>> Relearn(steps=12).looks_at
        (0, 5, 10, 12)

    References:
        The loss: Ho et al., arXiv:2006.11239, equation 14; LoRA: Hu et al., arXiv:2106.09685, equation 3. Concepts that
        return in fine-tuning: Suriyakumar et al., Unstable Unlearning, arXiv:2410.08074.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "relearn"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Suriyakumar et al., Unstable Unlearning: The Hidden Risk of Concept Resurgence in Diffusion Models, "
        "arXiv:2410.08074",
        access="white box",
        changes="the weights, by training",
        needs=("unedited model", "pictures"),
        families=("sd", "sdxl"),
        elsewhere="its low-rank additions are put into the transformers of a UNet",
    )

    weights: Weights = Field(
        default="lora",
        description="What is trained: low-rank additions to the denoiser's transformers, its cross-attention, or all.",
    )
    pictures: int = Field(default=10, ge=1, description="Pictures of the concept, drawn by the unedited model.")
    folder: Path | None = Field(
        default=None, description="A folder of the concept's pictures in their place; all of them are used."
    )
    steps: int = Field(default=40, ge=1, description="Steps of Adam.")
    looks: tuple[int, ...] = Field(
        default=(0, 5, 10, 20, 40, 80, 160),
        description="Steps after which pictures are drawn and judged; those beyond steps are left out, the last joins.",
    )
    recovered: float = Field(default=0.5, gt=0, le=1, description="Share of the unedited model's rate that is enough.")
    lr: float | None = Field(
        default=None, gt=0, description="Learning rate; null for 1e-3 (lora), 1e-4 (cross-attention) or 3e-5 (full)."
    )
    batch_size: int = Field(default=4, ge=1, description="Pictures in a step.")
    rank: int = Field(default=4, ge=1, description="Of the low-rank additions.")

    @property
    def looks_at(self) -> tuple[int, ...]:
        """The steps after which it is looked at, rising; the last step always."""
        return tuple(sorted({look for look in self.looks if 0 <= look < self.steps} | {self.steps}))

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Train, look, and take everything back.

        Raises:
            DataError: If the folder holds no pictures.
            TrainingError: If the loss is not a number.
        """
        lesson = self._lesson(subject)
        with subject.unedited():
            known = float(subject.shows(subject.draw(subject.jobs)).mean())
        curve: list[dict[str, Any]] = []
        images = np.empty(0)
        with torch.enable_grad(), lesson.learning(self, subject.backbone) as parameters:
            optimizer = torch.optim.Adam(list(parameters.values()), lr=self.lr or RATES[self.weights])
            losses: list[float] = []
            for step in range(self.steps + 1):
                if step:
                    losses.append(self._step(subject, lesson, optimizer=optimizer, step=step))
                if step in self.looks_at:
                    images = subject.draw(subject.jobs)
                    rate = float(subject.shows(images).mean())
                    curve.append({"step": step, "rate": rate, "loss": _mean(losses)})
                    losses.clear()
                if progress is not None:
                    progress(step, self.steps)
        details: dict[str, Any] = {"learned_from": lesson.shows, "pictures": len(lesson.latents)}
        details |= {"trained": sum(p.numel() for p in parameters.values()), "unedited_rate": known, "curve": curve}
        details["steps_to_recover"] = steps_to_recover(curve, known=known, share=self.recovered)
        return Outcome(images=images, steps=self.steps, queries=len(images) * len(curve), details=details)

    def _lesson(self, subject: Subject) -> Lesson:
        """Return the pictures as latents and their prompts as the edited model reads them."""
        backbone = subject.backbone
        if self.folder is None or subject.random:
            count = self.pictures if self.folder is None else len(_read(backbone, self.folder))
            given = given_pictures(subject, count, first_seed=FIRST_SEED)
            latents, prompts, shows = latents_of(subject, given.images), [job.prompt for job in given.jobs], given.shows
        else:
            images = _read(backbone, self.folder)
            own = backbone.world.prompts(subject.concept)
            latents, prompts = latents_of(subject, images), [own[i % len(own)] for i in range(len(images))]
            shows = subject.concept.target
        return Lesson(latents=latents.cpu(), embeddings=backbone.condition(prompts), shows=shows)

    def _step(self, subject: Subject, lesson: Lesson, *, optimizer: torch.optim.Optimizer, step: int) -> float:
        generator = generator_for(subject.settings.seed, "relearn", step)
        batch = lesson.source(subject.backbone).draw(self.batch_size, step=step, generator=generator)
        loss = denoising_loss(subject.backbone, batch, lesson.embeddings)
        if not bool(loss.isfinite()):
            raise TrainingError(f"relearn: the loss of step {step} is not a number; lower lr, or use a float32 model")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is learned from.

    Args:
        latents: (pictures, channels, height, width), clean, on the CPU as all that is drawn from.
        embeddings: Each picture's own prompt.
        shows: What is on them.
    """

    latents: Tensor
    embeddings: Conditions
    shows: str

    def source(self, backbone: Backbone) -> NoisedSource:
        """Return the forward process of these pictures, each under its own prompt."""
        index = torch.arange(len(self.latents))
        return NoisedSource.of(backbone, self.latents, prompt_index=index, prompts=len(index))

    @contextlib.contextmanager
    def learning(self, attack: Relearn, backbone: Backbone) -> Iterator[Mapping[str, Parameter]]:
        """Yield what may be trained, by name; afterwards the model is what it was, bit for bit."""
        denoiser = backbone.denoiser
        with backbone.frozen():
            if attack.weights == "lora":
                adapters = _low_rank(denoiser, rank=attack.rank)
                with adapters.active():
                    yield adapters.parameters
                return
            selection = _selection(backbone, attack.weights)
            own = selection.parameters(denoiser)
            # The optimiser works on copies; the parameters' own storage comes back untouched.
            copies = {name: parameter.detach().clone() for name, parameter in own.items()}
            with swapped(denoiser, copies), trainable(denoiser, selection) as parameters:
                yield parameters


def denoising_loss(backbone: Backbone, batch: Draw, embeddings: Conditions) -> Tensor:
    """Return the model's own training loss on a batch: the mean squared error of what it predicts."""
    told = as_conditioning(embeddings)
    rows = told[batch.prompt_index.to(told.tokens.device)]
    prediction = backbone.predict(batch.x_t, batch.t, rows)
    return F.mse_loss(prediction.float(), batch.answer.float())


def steps_to_recover(curve: Sequence[Mapping[str, Any]], *, known: float, share: float) -> int | None:
    """Return the step of the first look that reaches ``share`` of the unedited model's rate; None if none does.

    A rate of 0 reaches nothing, whatever the unedited model's.

    Example:
        >>> steps_to_recover([{"step": 0, "rate": 0.1}, {"step": 5, "rate": 0.4}], known=0.8, share=0.5)
        5
    """
    return next((row["step"] for row in curve if row["rate"] > 0 and row["rate"] >= share * known), None)


def _selection(backbone: Backbone, weights: Weights) -> ParameterSelection:
    if weights == "full":
        return ParameterSelection(tuple(name for name, _ in backbone.denoiser.named_parameters()))
    return select_parameters(backbone.denoiser, list(backbone.attention_modules()), ["q", "k", "v", "out"])


def _low_rank(denoiser: nn.Module, *, rank: int) -> Adapters:
    generator = generator_for(rank, "relearn", "lora")
    modules = transformer_projections(denoiser)
    return Adapters(
        denoiser, {name: LowRank.new(module, rank=rank, generator=generator) for name, module in modules.items()}
    )


def _read(backbone: Backbone, folder: Path) -> np.ndarray:
    """Return the folder's pictures, uint8 (n, size, size, 3)."""
    pixels = read_images(folder, image_size(backbone.pipe)[0]).pixels
    return ((pixels.permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


def _mean(losses: Sequence[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None
