"""Forget-Me-Not: train cross-attention to give a concept's tokens nothing."""

from __future__ import annotations

import functools
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.sources import Source, noise_only
from aizheimer.edits.edit import Edit
from aizheimer.engine.attention_problem import AttentionProblem, Examples, HeldOut
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, check_images, learn, plan_for
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.groups import select_group
from aizheimer.modules.parameters import select_layers, select_parameters
from aizheimer.objectives.resteering import resteering

ZEROS = "zeros"


class ForgetMeNot(BaseModel):
    r"""Drive the attention to the concept's tokens to zero, in every layer and head, and hold nothing else.

    .. math:: L = \lVert \operatorname{concat}(A_0 \dots A_n) \rVert_2

    one plain norm, neither squared nor averaged, on noised pictures of the concept. The predicted noise is thrown away.

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
        families={**EVERYWHERE, "flux": ("layers=^transformer_blocks",)},
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
        return self

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            SelectorError: If layers selects nothing.
        """
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
            plan=plan_for(self.rollouts, retain=False, forget=False),
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, layers: list[str]) -> Task:
        backbone, data = material.backbone, material.data
        columns = backbone.token_columns(data.forget_prompts, material.concept.target, policy=self.token_policy)
        source, held = self._sources(material)
        forget = Examples(
            source=source,
            embeddings=data.forget_embeddings,
            columns=columns.cpu(),
            batch_size=self.training.batch_size,
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
        return Task(problem=problem)

    def _sources(self, material: Material) -> tuple[Source, Source]:
        """Return where latents come from: for training, and for the held-out set."""
        if self.images != ZEROS:
            return material.noised_forget()
        zeros = noise_only(material.backbone, prompts=len(material.data.forget_prompts))
        return zeros, zeros
