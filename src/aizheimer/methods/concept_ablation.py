"""Concept Ablation: predict for a concept what is predicted for its anchor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning, joined
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention
from aizheimer.data.augmentation import PREFIXES, augmented_latents
from aizheimer.data.cache import tensor_hash
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.sources import NoisedSource
from aizheimer.edits.edit import Edit
from aizheimer.engine.anchor import BankAnchor
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import begin_token_detached
from aizheimer.engine.noise_problem import NoiseProblem, RetainTerm, TargetTerm
from aizheimer.engine.noise_targets import CurrentPrediction
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ConceptError
from aizheimer.methods._material import AnchorChoice, Material, RetainPlan, anchored
from aizheimer.methods._trained import Task, check_begin_token, check_images, learn, no_attention_stop, plan_for
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.groups import select_group
from aizheimer.modules.parameters import ParameterSelection, Part, select_layers, select_parameters

PARTS: dict[str, tuple[Part, ...]] = {"kv": ("k", "v"), "attention": ("q", "k", "v", "out")}


class ConceptAblation(BaseModel):
    r"""Train the prediction for the concept's prompts to be that for the anchor's, on pictures of the anchor.

    Model-based (a cat for a grumpy cat), with the network as it is now on both sides:

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, c),\; \operatorname{sg} \epsilon_\theta(x_t, c^*)\big)

    Noise-based: :math:`L = \operatorname{MSE}(\epsilon_\theta(x_t, c), \epsilon)`, which teaches that the concept's
    words mean the anchor's pictures. Either plus a weighted diffusion loss on the anchor's pictures under their own
    prompts.

    Example:
        >>> edit = ConceptAblation().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, arXiv:2303.13516, eq. 3 to 6.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "concept-ablation"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, arXiv:2303.13516",
        kind="fine-tune",
        needs=("prompts", "anchor", "images"),
        edits="cross-attention keys and values",
        status="stable",
        families={**EVERYWHERE, "flux": ("detach_begin_token=false",)},
    )

    variant: Literal["model", "noise"] = Field(
        default="model", description="What the prediction should be: the anchor's (the paper's best), or the noise."
    )
    weights: Literal["kv", "attention", "full"] = Field(
        default="kv",
        description="Trained weights: keys and values of cross-attention (the paper's default), all of it (its code "
        "for nudity), or everything (memorised pictures).",
    )
    layers: str | list[str] = Field(
        default="all",
        description="all, skip_ends, a list of attention modules, or a regular expression; kv, attention.",
    )
    empty_anchor: AnchorChoice = Field(
        default="refuse",
        description="When the concept names no anchor: refuse (the paper always has one); null, the empty prompt; "
        "template, the prompt without the concept's words; auto, null for an object and template for a style.",
    )
    anchor_prompts: tuple[str, ...] = Field(
        default=(),
        description="The anchor's prompts, in place of the concept's with the anchor's word in them; paired with the "
        "concept's in turn, and drawn. For a memorised picture: paraphrases of its caption that do not bring it back.",
    )
    prompts: Literal["world", "target"] = Field(
        default="world",
        description="The concept's prompts: the world's, or its own words alone: a memorised picture's caption.",
    )
    augmentation: Literal["none", "object"] = Field(
        default="none",
        description="object: the anchor's pictures also smaller and larger, the loss where they are, and words that "
        "say so in the concept's prompts: the paper's for objects, and none for styles and memorised pictures.",
    )
    augmented_copies: int = Field(
        default=1,
        ge=1,
        description="Augmented versions of each picture. One is the paper's: of its 1000 pictures none is used twice.",
    )
    images: str = Field(
        default="generate:1000",
        description="Pictures of the anchor: generate:N lets the model draw N (1000 in the paper), or a folder.",
    )
    regularization_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the diffusion loss on the anchor's pictures: optional in the paper; where it is on, its "
        "authors' two codes disagree, 0.2 in CompVis's and 1.0 in diffusers'.",
    )
    detach_begin_token: bool = Field(
        default=True, description="No gradient through keys and values of the first token, as in the authors' code."
    )
    retain_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of matching the frozen model on retain prompts; the paper has no such term.",
    )
    retain: RetainPlan = Field(default=RetainPlan())
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(), description="Rollouts of retain prompts; guidance is also the pictures'."
    )
    training: TrainSettings = Field(
        default=TrainSettings(
            steps=100, lr=1.6e-5, batch_size=8, optimizer="adamw", weight_decay=0.01, clip=1.0, drift_limit=None
        ),
        description="100 steps of AdamW at 2e-6 times 8 examples in the paper (styles and objects).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ConceptAblation:
        no_attention_stop(self.training)
        check_images(self.images)
        if any(not words.split() for words in self.anchor_prompts):
            raise ValueError("anchor_prompts has an empty entry; leave it out, or set empty_anchor to null instead")
        return self

    @property
    def rolled_out(self) -> RolloutPlan:
        """The rollouts that are made: one in the place of those that nothing is trained on."""
        return plan_for(self.rollouts, retain=self.retain_weight > 0, forget=False)

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            ConceptError: If the concept names no anchor, ``empty_anchor`` is ``refuse`` and there are no
                ``anchor_prompts``; if one of these names the concept or is cut off; or if a style is to be augmented.
            SelectorError: If layers selects nothing.
        """
        self._check(backbone, concept)
        check_begin_token(backbone, detach=self.detach_begin_token)
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        return learn(
            self,
            backbone,
            concept,
            selection=self._selection(backbone, layers),
            task=lambda material: self._task(material, layers),
            pictures=self.images,
            forget_latents=False,
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _selection(self, backbone: Backbone, layers: list[str]) -> ParameterSelection:
        if self.weights == "full":
            return select_group(backbone.denoiser, "unet", layers=backbone.attention_modules())
        return select_parameters(backbone.denoiser, layers, PARTS[self.weights])

    def _check(self, backbone: Backbone, concept: Concept) -> None:
        self._pairs([], concept)
        if self.prompts == "target":
            backbone.token_columns([concept.target], concept.target, policy="concept")
        for prompt in self.anchor_prompts:
            if mention(concept.target).search(prompt):
                raise ConceptError(
                    f"anchor_prompts: '{prompt}' names '{concept.target}', which is to be forgotten; write it without"
                )
            if any(len(ids) > window.room for window in backbone.windows for ids in window.words([prompt])):
                raise ConceptError(f"anchor_prompts: '{prompt}' is longer than the model reads; shorten it")
        if self.augmentation == "object" and concept.kind == "style":
            raise ConceptError(
                f"augmentation=object shows an object smaller and larger, and '{concept.target}' is a style; set "
                "augmentation to none"
            )

    def _pairs(self, prompts: Sequence[str], concept: Concept) -> tuple[list[str], list[str]]:
        """Return the concept's prompts, and the anchor's prompt that goes with each."""
        forget = [concept.target] if self.prompts == "target" else list(prompts)
        if not self.anchor_prompts:
            instead = ", or give its prompts as anchor_prompts"
            return forget, anchored(forget, concept, empty=self.empty_anchor, method=self.name, instead=instead)
        count = max(len(forget), len(self.anchor_prompts)) if forget else 0
        chosen = [self.anchor_prompts[i % len(self.anchor_prompts)] for i in range(count)]
        return [forget[i % len(forget)] for i in range(count)], chosen

    def _task(self, material: Material, layers: list[str]) -> Task:
        backbone, data = material.backbone, material.data
        forget, prompts = self._pairs(data.forget_prompts, material.concept)
        words = data.forget_embeddings if forget == data.forget_prompts else material.embeddings(forget)
        anchors = material.embeddings(prompts)
        latents, index = material.pictures(prompts, self.images)
        source, held = material.noised(latents, index, prompts=len(prompts))
        shown, hashes = self._shown(material, _Shown(source, words, anchors), forget=forget)
        size, weight = self.training.batch_size, self.regularization_weight
        target = CurrentPrediction(backbone=backbone, embeddings=shown.anchors)
        terms = [
            TargetTerm(
                backbone=backbone,
                source=shown.source,
                embeddings=shown.words,
                target=BankAnchor() if self.variant == "noise" else target,
                batch_size=size,
            ),
            *material.teacher_term(self.retain_weight),
        ]
        if weight > 0:
            term = RetainTerm(
                backbone=backbone, source=source, embeddings=anchors, batch_size=size, weight=weight, name="noise"
            )
            terms.append(term)
        examples = material.held_out(held, target=anchors if self.variant == "model" else None)
        problem = NoiseProblem(parameters=material.parameters, terms=terms, held_out=material.monitor(examples, words))
        during = begin_token_detached(backbone.denoiser, layers) if self.detach_begin_token else nullcontext()
        return Task(problem=problem, during=during, data=hashes)

    def _shown(self, material: Material, plain: _Shown, *, forget: Sequence[str]) -> tuple[_Shown, dict[str, str]]:
        """Return what is trained on, augmented if it should be, and its hash.

        Only the concept's prompts say that a picture is small or large, and not the anchor's: so do both of the
        authors' codes.
        """
        if self.augmentation == "none":
            return plain, {}
        source, count = plain.source, len(forget)
        made = augmented_latents(
            material.backbone,
            source.latents,
            copies=self.augmented_copies,
            seed=self.training.seed,
            cache_dir=material.cache,
            progress=material.callbacks.on_progress,
        )
        own = torch.arange(len(source.latents)) % count if source.prompt_index is None else source.prompt_index
        shown = _Shown(
            source=replace(
                source,
                latents=made.latents,
                prompt_index=own.repeat(self.augmented_copies) + count * made.prefix,
                masks=made.masks,
            ),
            words=material.embeddings([prefix + prompt for prefix in PREFIXES for prompt in forget]),
            anchors=joined([plain.anchors] * len(PREFIXES)),
        )
        return shown, {"augmented": tensor_hash(made.latents)}


@dataclass(frozen=True)
class _Shown:
    """Pictures, and the concept's and the anchor's words for them; the pictures' ``prompt_index`` counts in both."""

    source: NoisedSource
    words: Conditioning
    anchors: Conditioning
