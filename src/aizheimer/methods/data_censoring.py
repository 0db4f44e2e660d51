"""Data censoring: train on data that the concept has been left out of."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.cache import content_key, tensor_hash
from aizheimer.data.captioned import check_captioned, concept_words, other_prompts, read_captioned
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.prepare import encoded_pictures, generate_count, picture_size, reading
from aizheimer.data.sources import BankSource, Draw, NoisedSource
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.caption_term import CaptionTerm
from aizheimer.engine.noise_problem import DriftMonitor, NoiseProblem
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, check_images, learn, no_attention_stop, plan_for
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.groups import select_group


class DataCensoring(BaseModel):
    r"""Train the denoiser with its own loss on captioned pictures, every one that mentions the concept left out.

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, c),\; \epsilon\big)

    Three things go by this name, and they are not worth the same:

    - ``start=scratch`` with the model's own drawings (a folder) is **re-training without the concept**, the upper
      baseline that unlearning is compared with. It takes as long as training did. Only the denoiser is made anew: text
      encoder and autoencoder still come from data with the concept.
    - ``start=model`` with a folder is **fine-tuning** on what is left. Nothing in the loss asks for forgetting: the
      concept fades only as far as the weights drift, slowly, and what fades first need not be the concept.
    - ``images=generate:N`` trains on pictures that the model itself draws of everything else in its world, for when its
      data are not at hand. Fine-tuning on them hardly moves it, since it is at home there; from scratch they make a
      copy of the model without the concept, no better than what it draws.

    Example:
        >>> edit = DataCensoring(images="drawings").unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Rombach and Esser, Stable Diffusion 2.0 (2022), whose data were filtered; a baseline in Gandikota et al.,
        Erasing Concepts from Diffusion Models, arXiv:2303.07345. The loss: Ho et al., arXiv:2006.11239, eq. 14.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "data-censoring"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Rombach and Esser, Stable Diffusion 2.0 (2022), whose data were filtered; a baseline, no paper's method",
        kind="fine-tune",
        needs=("images",),
        edits="a group of the denoiser's weights, by default all",
        status="stable",
        families=EVERYWHERE,
    )

    images: str = Field(
        default="generate:1000",
        description="Pictures to train on: a HuggingFace imagefolder with metadata.jsonl (file_name, text; label and "
        "style if known), or generate:N for N pictures that the model draws of everything else in its world.",
    )
    synonyms: tuple[str, ...] | None = Field(
        default=None,
        description="Words that mean the concept as well: records with them are left out too. Null takes the world's "
        "own tags of it that nothing else there has.",
    )
    start: Literal["model", "scratch"] = Field(
        default="model", description="Train the model on, or a new one with random weights (group must be full)."
    )
    group: str = Field(default="full", description="Trained weights; see esd's groups.")
    caption_dropout: float = Field(
        default=0.1, ge=0, le=1, description="Share of examples under the empty prompt, for guidance; 0.1 is usual."
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="Watched only: the data are all that holds the rest.")
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(), description="Rollouts of the held-out prompts; guidance is also the pictures'."
    )
    training: TrainSettings = Field(
        default=TrainSettings(
            steps=1000, lr=1e-5, batch_size=16, optimizer="adamw", weight_decay=0.01, clip=1.0, drift_limit=None
        ),
        description="A usual fine-tuning of a Stable Diffusion model; from scratch it takes 1e-4 or more, and days.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataCensoring:
        no_attention_stop(self.training)
        check_images(self.images)
        if self.start == "scratch" and self.group not in ("full", "unet"):
            raise ValueError(f"start=scratch makes all weights anew; set group to full (got {self.group})")
        if self.start == "scratch" and self.training.drift_limit is not None:
            raise ValueError("start=scratch begins far from the model; set training.drift_limit to null")
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
            ConceptError: If the model's world has nothing else to draw.
            DataError: If the folder has no captions, or nothing but the concept.
            SelectorError: If the group is unknown or empty.
        """
        words = concept_words(concept, backbone.world, self.synonyms)
        selection = select_group(backbone.denoiser, self.group, layers=backbone.attention_modules())
        if generate_count(self.images) is None:
            check_captioned(Path(self.images), words=words, kind=concept.kind)
        else:
            other_prompts(backbone, concept, words)
        return learn(
            self,
            backbone,
            concept,
            selection=selection,
            task=lambda material: self._task(material, words),
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, words: tuple[str, ...]) -> Task:
        source, captions, left_out = self._data(material, words)
        hashes = {"pictures": tensor_hash(source.latents), "captions": content_key(captions=captions)}
        term = CaptionTerm(
            backbone=material.backbone,
            source=source,
            captions=captions,
            dropout=self.caption_dropout,
            batch_size=self.training.batch_size,
        )
        watch = DriftMonitor(
            backbone=material.backbone,
            forget=self._held_out_forget(material),
            forget_embeddings=material.data.forget_embeddings,
            retain=material.held_out_retain(),
            retain_embeddings=material.retain_embeddings,
        )
        if self.start == "scratch":
            self._make_anew(material)
        problem = NoiseProblem(parameters=material.parameters, terms=[term], held_out=watch)
        record = {"words": list(words), "pictures": len(source.latents), "left_out": left_out}
        return Task(problem=problem, during=reading(material.backbone), data=hashes, extra={"censored": record})

    def _data(
        self, material: Material, words: tuple[str, ...]
    ) -> tuple[NoisedSource, tuple[tuple[str, ...], ...], int | None]:
        """Return the pictures, the captions of each, and how many records were left out (None if none was written)."""
        backbone, kind = material.backbone, material.concept.kind
        count = generate_count(self.images)
        if count is None:
            found = read_captioned(Path(self.images), picture_size(backbone), words=words, kind=kind)
            latents = encoded_pictures(
                backbone, found.pixels, cache_dir=material.cache, progress=material.callbacks.on_progress
            )
            captions, left_out = found.captions, found.left_out
        else:
            prompts = other_prompts(backbone, material.concept, words)
            order = torch.randperm(len(prompts), generator=generator_for(self.training.seed, "pictures")).tolist()
            chosen = [prompts[i] for i in order[:count]]
            latents, index = material.pictures(chosen, self.images)
            captions, left_out = tuple((chosen[i],) for i in index.tolist()) if index is not None else (), None
        places = torch.arange(len(latents))
        source = NoisedSource.of(backbone, latents, prompt_index=places, prompts=len(captions))
        return source, captions, left_out

    def _held_out_forget(self, material: Material) -> Draw:
        """Return the frozen model's held-out rollouts of the concept's prompts, to watch what becomes of them."""
        _, held = material.forget_banks()
        source = BankSource.of(held, target=held.prediction, device=material.backbone.device)
        return material.held_out(source)

    def _make_anew(self, material: Material) -> None:
        """Give the denoiser the random weights that its class begins with."""
        denoiser = material.backbone.denoiser
        seed = int(torch.randint(2**31, (1,), generator=generator_for(self.training.seed, "scratch")))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)  # initialisation knows no other source of chance
            fresh: nn.Module = type(denoiser).from_config(denoiser.config)  # type: ignore[attr-defined]
            for name, parameter in fresh.named_parameters():
                material.parameters[name].copy_(parameter)
