"""SalUn: relabel a concept, and change only the weights that matter to it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import expanded
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.sources import NoisedSource
from aizheimer.diffusion.guidance import guide
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import SaliencyMask, saliency_masks
from aizheimer.engine.noise_problem import NoiseProblem, RetainTerm, TargetTerm
from aizheimer.engine.noise_targets import CurrentPrediction
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ConceptError
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, check_images, learn, no_attention_stop, plan_for
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.groups import select_group
from aizheimer.objectives.noise_target import target_mse


class SalUn(BaseModel):
    r"""Predict for a concept's pictures under its prompt what is predicted under another's, where the weights care.

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, c),\; \operatorname{sg} \epsilon_\theta(x_t, c^*)\big)
              + \alpha\, L_{DM}(\text{retain})

    with the gradient multiplied by a mask: the share of all weights whose summed gradient of the diffusion loss on the
    concept's pictures is largest.

    Example:
        >>> edit = SalUn().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Fan et al., SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency, arXiv:2310.12508, eq. 4, 6.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "salun"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Fan et al., SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency, arXiv:2310.12508",
        kind="fine-tune",
        needs=("prompts", "images", "retain prompts"),
        edits="the most salient half of a group of weights, by default of all",
        status="stable",
        families=EVERYWHERE,
    )

    group: str = Field(default="full", description="Weights the mask is taken from; see esd's groups. The paper: all.")
    fraction: float = Field(default=0.5, gt=0, le=1, description="Share of them that may change; half in the paper.")
    relabel: Literal["auto", "anchor", "other"] = Field(
        default="auto",
        description="What the concept becomes: its anchor; another thing (or style) of the model's world for each "
        "prompt, as the paper takes the next class; auto takes the anchor if there is one.",
    )
    images: str = Field(
        default="generate:800",
        description="The concept's pictures: generate:N lets the model draw N (800 in the paper, for nudity), or a "
        "folder.",
    )
    saliency_guidance: float = Field(
        default=7.5, ge=0, description="Guidance g in the mask's loss, (1 + g) eps(c) - g eps(empty), as in the code."
    )
    retain_weight: float = Field(
        default=0.5, ge=0, description="Alpha; 0.5 for classes in the paper's readme, 0.1 in its code and for nudity."
    )
    retain: RetainPlan = Field(default=RetainPlan())
    rollouts: RolloutPlan = Field(
        default=RolloutPlan(retain=64), description="Pictures of retain prompts; guidance is that of all pictures."
    )
    training: TrainSettings = Field(
        default=TrainSettings(steps=500, lr=1e-5, batch_size=8, optimizer="adam", clip=None, drift_limit=None),
        description="5 epochs of 800 pictures, 8 in a batch, with Adam at 1e-5.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> SalUn:
        no_attention_stop(self.training)
        check_images(self.images)
        if self.training.weight_decay > 0:
            raise ValueError("training.weight_decay would move weights outside the mask as well; set it to 0")
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
            ConceptError: If relabel is anchor and the concept names none, or there is nothing else to become.
            SelectorError: If the group is unknown or empty.
        """
        self._labels(backbone, concept)
        return learn(
            self,
            backbone,
            concept,
            selection=select_group(backbone.denoiser, self.group, layers=backbone.attention_modules()),
            task=self._task,
            images=self.images,
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material) -> Task:
        backbone, data = material.backbone, material.data
        others = material.embeddings(self._relabelled(material))
        source, held = material.noised_forget()
        terms: list[TargetTerm | RetainTerm] = [
            TargetTerm(
                backbone=backbone,
                source=source,
                embeddings=data.forget_embeddings,
                target=CurrentPrediction(backbone=backbone, embeddings=others),
                batch_size=self.training.batch_size,
            )
        ]
        if self.retain_weight > 0:
            terms.append(self._retention(material))
        forget = material.held_out(held, target=others)
        problem = NoiseProblem(
            parameters=material.parameters, terms=terms, held_out=material.monitor(forget, data.forget_embeddings)
        )
        masks = saliency_masks(self._saliency(material, source), fraction=self.fraction)
        return Task(problem=problem, rule=SaliencyMask(masks))

    def _retention(self, material: Material) -> RetainTerm:
        bank, _ = material.retain_banks
        prompts = len(material.data.retain_embeddings)
        source = NoisedSource.of(material.backbone, bank.x_0, prompt_index=bank.x_0_prompt_index, prompts=prompts)
        return RetainTerm(
            backbone=material.backbone,
            source=source,
            embeddings=material.retain_embeddings,
            batch_size=self.retain.batch_size,
            weight=self.retain_weight,
            name="noise",
        )

    def _saliency(self, material: Material, source: NoisedSource) -> dict[str, Tensor]:
        """Return the summed gradients of one pass over the concept's pictures; zero where nothing reaches."""
        backbone, data = material.backbone, material.data
        sums = {name: torch.zeros_like(parameter) for name, parameter in material.parameters.items()}
        size = self.training.batch_size
        batches = torch.arange(len(source.latents)).split(size)
        for i, pictures in enumerate(batches):
            material.callbacks.on_progress("saliency", i, len(batches))
            draw = source.noised(pictures, generator=generator_for(self.training.seed, "saliency", i))
            if draw.target is None:
                raise ValueError("the saliency mask needs the noise that was added")
            words = data.forget_embeddings[draw.prompt_index].to(draw.x_t)
            prompted = backbone.predict(draw.x_t, draw.t, words)
            null = backbone.predict(draw.x_t, draw.t, expanded(data.null_embedding.to(draw.x_t), len(words)))
            loss = target_mse(guide(null, prompted, 1 + self.saliency_guidance), draw.target).total
            # A mean over the batch: a picture of a short last batch would count for more than others.
            loss = loss * len(pictures) / size
            gradients = torch.autograd.grad(loss, list(material.parameters.values()), allow_unused=True)
            for name, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    sums[name] -= gradient
        return sums

    def _labels(self, backbone: Backbone, concept: Concept) -> list[str]:
        """Return what the concept may become."""
        if concept.anchor and self.relabel != "other":
            return [concept.anchor]
        if self.relabel == "anchor":
            raise ConceptError(
                f"salun with relabel=anchor needs an anchor, what '{concept.target}' becomes, and got none; name one "
                "with --anchor, or set relabel to other"
            )
        world = backbone.world
        labels = world.styles if concept.kind == "style" else tuple(item.label for item in world.vocabulary)
        others = [label for label in labels if label.casefold() != concept.target.casefold()]
        if not others:
            raise ConceptError(f"salun finds nothing else that '{concept.target}' could become; name an --anchor")
        return others

    def _relabelled(self, material: Material) -> list[str]:
        concept, prompts = material.concept, material.data.forget_prompts
        labels = self._labels(material.backbone, concept)
        chosen = torch.randint(
            len(labels), (len(prompts),), generator=generator_for(self.training.seed, "relabel")
        ).tolist()
        return [
            anchor_prompts([prompt], Concept(concept.target, anchor=labels[i], kind=concept.kind))[0]
            for prompt, i in zip(prompts, chosen, strict=True)
        ]
