"""Forget-Me-Not: train cross-attention to give a concept's tokens nothing."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.concepts.concept import Concept
from aizheimer.data.cache import TensorCache, content_key, module_hash, tensor_hash
from aizheimer.data.free_words import free_words, nearest_words
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.sources import NoisedSource, noise_only
from aizheimer.edits.edit import Edit
from aizheimer.engine.attention_problem import AttentionProblem, Examples, HeldOut
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.inversion import Inversion, LearnedWords, check_inversion, learn_words, written_with
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, check_images, learn, plan_for
from aizheimer.methods.base import MethodInfo
from aizheimer.modules.groups import select_group
from aizheimer.modules.parameters import select_layers, select_parameters
from aizheimer.objectives.resteering import resteering

ZEROS = "zeros"


class ForgetMeNot(BaseModel):
    r"""Drive the attention to the concept's tokens to zero, in every layer and head, and hold nothing else.

    .. math:: L = \lVert \operatorname{concat}(A_0 \dots A_n) \rVert_2

    one plain norm, neither squared nor averaged, on noised pictures of the concept. The predicted noise is thrown away.

    With ``inversion`` words are learned from the pictures first, and the prompts say those in the place of the
    concept's name: what is forgotten is what the pictures show, also where the name is vague.

    Example:
        >>> edit = ForgetMeNot().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Zhang et al., Forget-Me-Not: Learning to Forget in Text-to-Image Diffusion Models, arXiv:2303.17591, eq. 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "forget-me-not"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Zhang et al., Forget-Me-Not: Learning to Forget in Text-to-Image Diffusion Models, arXiv:2303.17591",
        kind="fine-tune",
        needs=("prompts", "images"),
        edits="cross-attention, or the whole denoiser",
        status="stable",
        families={
            "sd": (),
            "sdxl": ("inversion=null",),
            "sd3": ("inversion=null",),
            "flux": ("layers=^transformer_blocks", "inversion=null"),
        },
    )

    weights: Literal["cross-attention", "unet"] = Field(
        default="unet", description="Trained weights: everything (the published setting) or cross-attention only."
    )
    layers: str | list[str] = Field(
        default="all",
        description="Where attention is watched, and trained with weights=cross-attention: all, skip_ends, a list of "
        "attention modules, or a regular expression.",
    )
    token_policy: TokenPolicy = Field(
        default="concept+eot",
        description="Tokens to look away from: all sub-tokens and the first end-of-text (the published setting on "
        "Stable Diffusion 2.1). Its code marks every end-of-text token, which on Stable Diffusion 1 is the padding "
        "too: concept+eot+padding.",
    )
    images: str = Field(
        default="generate:10",
        description="The concept's pictures: a folder, generate:N lets the model draw N (10 in the paper), or zeros, "
        "noised nothing, for which no picture is needed.",
    )
    inversion: Inversion | None = Field(
        default=None,
        description="Learn words from the pictures first (textual inversion), and forget those; null forgets the name. "
        "Optional in the paper, and on in its published configuration. On Stable Diffusion 1 and 2.",
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="Watched only: the method has no retention term.")
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(), description="Rollouts of the held-out retain prompts; guidance is also the pictures'."
    )
    training: TrainSettings = Field(
        default=TrainSettings(
            steps=35, lr=2e-6, batch_size=1, optimizer="adamw", weight_decay=0.01, clip=1.0, drift_limit=None
        ),
        description="35 steps of AdamW at 2e-6, one example each. In the published code the clipping does nothing when "
        "everything is trained; here it always works.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ForgetMeNot:
        if self.images != ZEROS:
            check_images(self.images)
        elif self.inversion is not None:
            raise ValueError(
                "inversion learns words from the concept's pictures, and images=zeros has none; set images to a folder "
                "or generate:N, or inversion to null"
            )
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
            ConceptError: If learned words do not fit into the prompts.
            ModelError: If words are to be learned on a model with several text encoders.
            SelectorError: If layers selects nothing.
        """
        if self.inversion is not None:
            check_inversion(backbone, backbone.world.prompts(concept), target=concept.target, plan=self.inversion)
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        selection = (
            select_group(backbone.denoiser, "unet", layers=backbone.attention_modules())
            if self.weights == "unet"
            else select_parameters(backbone.denoiser, layers, ("q", "k", "v", "out"))
        )
        return learn(
            self,
            backbone,
            concept,
            selection=selection,
            task=lambda material: self._task(material, layers),
            images=None if self.images == ZEROS else self.images,
            forget_latents=self.images != ZEROS,
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, layers: list[str]) -> Task:
        backbone = material.backbone
        source, held = self._sources(material)
        learned = None if self.inversion is None else self._learned(material, source, plan=self.inversion)
        embeddings, columns = self._asked(material, learned)
        forget = Examples(
            source=source, embeddings=embeddings, columns=columns.cpu(), batch_size=self.training.batch_size
        )
        problem = AttentionProblem(
            backbone=backbone,
            parameters=material.parameters,
            layers=layers,
            # "notebook" is one norm over the batch as well: the method's own, and its paper's at a batch of one.
            term=functools.partial(resteering, variant="notebook", tokens=backbone.attended_keys),
            forget=forget,
            retain_term="none",
            held_out=HeldOut(
                forget=material.held_out(held),
                retain=material.held_out_retain(),
                retain_embeddings=material.retain_embeddings,
            ),
        )
        if learned is None:
            return Task(problem=problem)
        record = {"losses": learned.losses.tolist(), "words": nearest_words(backbone, learned.vectors)}
        hashes = {"inversion": tensor_hash(learned.vectors)}
        return Task(problem=problem, data=hashes, extra={"inversion": record})

    def _asked(self, material: Material, learned: LearnedWords | None) -> tuple[Conditioning, Tensor]:
        """Return the forget prompts, encoded, and which of their tokens are looked away from."""
        backbone, data, target = material.backbone, material.data, material.concept.target
        if learned is None:
            columns = backbone.token_columns(data.forget_prompts, target, policy=self.token_policy)
            return data.forget_embeddings, columns
        with free_words(backbone, learned.vectors.to(backbone.device)) as words:
            prompts = written_with(data.forget_prompts, target=target, words=words.text)
            columns = backbone.token_columns(prompts, words.text, policy=self.token_policy)
            return material.embeddings(prompts), columns

    def _learned(self, material: Material, source: NoisedSource, *, plan: Inversion) -> LearnedWords:
        """Return the words that stand for the concept's pictures, learned once for each run folder."""
        backbone, data, seed = material.backbone, material.data, self.training.seed

        def compute() -> dict[str, Tensor]:
            found = learn_words(
                backbone,
                source,
                prompts=data.forget_prompts,
                target=material.concept.target,
                plan=plan,
                generator=generator_for(seed, "inversion"),
                progress=material.callbacks.on_progress,
            )
            return {"vectors": found.vectors, "losses": found.losses}

        key = "" if material.cache is None else self._key(material, source, plan=plan)
        return LearnedWords(**TensorCache(material.cache).get(key, compute))

    def _key(self, material: Material, source: NoisedSource, *, plan: Inversion) -> str:
        """Return a hash of all that the learned words depend on."""
        backbone = material.backbone
        return content_key(
            kind="inversion",
            torch=torch.__version__,
            place=f"{backbone.device.type} {backbone.dtype}",
            plan=plan.model_dump(mode="json"),
            seed=self.training.seed,
            target=material.concept.target,
            prompts=material.data.forget_prompts,
            ids=tensor_hash(backbone.tokenize(material.data.forget_prompts)),
            pictures=tensor_hash(source.latents),
            index=None if source.prompt_index is None else source.prompt_index.tolist(),
            denoiser=backbone.fingerprint(),
            text=module_hash(backbone.networks["text_encoder"]),
            schedule=tensor_hash(backbone.schedule.table),
            prediction=backbone.prediction_type,
        )

    def _sources(self, material: Material) -> tuple[NoisedSource, NoisedSource]:
        """Return where latents come from: for training, and for the held-out set."""
        if self.images != ZEROS:
            return material.noised_forget()
        zeros = noise_only(material.backbone, prompts=len(material.data.forget_prompts))
        return zeros, zeros
