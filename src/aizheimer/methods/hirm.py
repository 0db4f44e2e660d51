"""HiRM: train the text encoder's first block until its last one says something else of a concept."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.readers import text_part
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.rows import Prompts, RowPolicy, aligned, forget_prompts, places, positions
from aizheimer.data.words import LiveEmbeddings
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.noise_problem import NoiseProblem, Term
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.engine.text_terms import KeepWordsTerm, MisdirectionsTerm, MisdirectionTerm, MisdirectionWatch
from aizheimer.errors import ConceptError
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._trained import Task, learn, no_attention_stop, plan_for
from aizheimer.methods.base import UNETS, MethodInfo, check_family, joint
from aizheimer.modules.text_encoder import captured, last_attention_output, select_read
from aizheimer.objectives.misdirection import random_direction

_STRENGTH = {"paper": 500.0, "repository": 5000.0}


class HiRM(BaseModel):
    r"""Misdirect what the last block's self-attention puts out for a concept, by training the first block alone.

    .. math:: L = \operatorname{MSE}(h_L(c), y), \qquad y = c\,\hat r \ \text{(HiRM-R)} \quad\text{or}\quad
              y = h_L(c^*) \ \text{(HiRM-S)}

    with :math:`\hat r` a random direction and :math:`c^*` the prompt with a super-category in the concept's place. In
    Stable Diffusion XL both encoders' first blocks are trained, on the mean of such losses: of the last blocks that the
    rows come through, and of the one that the pooled vector comes through besides.

    Example:
        >>> edit = HiRM(direction="anchor").unlearn(backbone, Concept("penguin", anchor="bird"))  # doctest: +SKIP

    References:
        Lee, Kim, Hwang: Localized Concept Erasure in Text-to-Image Diffusion Models via High-Level Representation
        Misdirection, arXiv:2602.19631.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "hirm"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Lee, Kim, Hwang: Localized Concept Erasure in Text-to-Image Diffusion Models via High-Level "
        "Representation Misdirection, arXiv:2602.19631",
        kind="fine-tune",
        needs=("prompts",),
        edits="the text encoder's first block, or both encoders'",
        status="stable",
        families=UNETS,
        elsewhere=joint("it trains CLIP's text encoders, and T5's words are read here too"),
    )

    direction: Literal["random", "anchor"] = Field(
        default="random",
        description="Where to: random (HiRM-R), or anchor (HiRM-S): what the anchor, a super-category, is read as.",
    )
    coefficient: float | None = Field(
        default=None,
        gt=0,
        description="Length of the target; null for the paper's: 500 for a random direction, 1 for an anchor.",
    )
    fidelity: Literal["paper", "repository"] = Field(
        default="paper",
        description="The random direction: one of norm 1 for all tokens; repository takes, as published code does, a "
        "tensor over tokens and entries whose norm as a whole is 1, and 5000 for coefficient=null.",
    )
    prompts: Prompts = Field(
        default="bare", description="The bare words (the paper), the world's templates with them, or both."
    )
    rows: RowPolicy = Field(
        default="all",
        description="Tokens that are moved: all (the paper), begin-of-text included, which every prompt shares; last, "
        "last..end, others, eot or concept spare it (ours).",
    )
    blocks: int = Field(default=1, ge=1, description="Blocks that are trained, from the first; 1 in the paper.")
    retain_weight: float = Field(
        default=0.0, ge=0, description="Weight of holding what is said of retain prompts (ours); the paper holds none."
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="Watched; held with retain_weight above 0.")
    rollouts: RolloutPlan = Field(default=RolloutPlan(), description="Rollouts of the held-out retain prompts.")
    training: TrainSettings = Field(
        default=TrainSettings(
            steps=50, lr=5e-5, batch_size=1, optimizer="adamw", weight_decay=0.01, clip=None, drift_limit=None
        ),
        description="15 to 50 steps of AdamW at 5e-5 (1e-4 for nudity) in the paper.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> HiRM:
        no_attention_stop(self.training)
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
            ConceptError: If direction is anchor and the concept names none.
            SelectorError: If the text encoder has fewer blocks.
        """
        check_family(self, backbone)
        if self.direction == "anchor" and not concept.anchor:
            raise ConceptError(
                f"hirm with direction=anchor needs a super-category of '{concept.target}' and got none; name one with "
                "--anchor, or set direction to random"
            )
        return learn(
            self,
            backbone,
            concept,
            selection=select_read(backbone.text_readers, blocks=self.blocks, parts=("attention", "mlp")),
            part=text_part(backbone),
            task=self._task,
            forget_latents=False,
            plan=self.rolled_out,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material) -> Task:
        backbone = material.backbone
        texts = forget_prompts(backbone, material.concept, which=self.prompts)
        term = self._misdirections(material, texts)
        with torch.no_grad():
            baseline = float(term.value(torch.arange(len(texts))).total)
        retained = LiveEmbeddings.of(backbone, [*material.data.retain_prompts, ""])
        watch = MisdirectionWatch(
            term=term,
            baseline=baseline,
            backbone=backbone,
            retain=material.held_out_retain(),
            retain_words=retained,
        )
        terms: list[Term] = [term]
        if self.retain_weight > 0:
            original = material.retain_embeddings
            size, weight = self.retain.batch_size, self.retain_weight
            terms.append(KeepWordsTerm(words=retained, original=original, batch_size=size, weight=weight))
        return Task(problem=NoiseProblem(parameters=material.parameters, terms=terms, held_out=watch))

    def _misdirections(self, material: Material, texts: list[str]) -> MisdirectionsTerm:
        """Return the loss of every layer that is moved; one direction is drawn after the other."""
        backbone, layers = material.backbone, _last_said(material.backbone, rows=self.rows)
        words, size = LiveEmbeddings.of(backbone, texts), self.training.batch_size
        generator = generator_for(self.training.seed, "direction")
        terms = {}
        for name, (layer, policy) in layers.items():
            target, rows = self._target(material, texts, layer=layer, policy=policy, generator=generator)
            terms[name] = MisdirectionTerm(words=words, layer=layer, target=target, rows=rows, batch_size=size)
        return MisdirectionsTerm(terms=terms)

    def _target(
        self, material: Material, texts: list[str], *, layer: nn.Module, policy: RowPolicy, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return where each prompt's rows are to go (prompts, tokens, dim), and which rows are."""
        backbone, concept = material.backbone, material.concept
        found = places(backbone, texts, words=concept.target)
        said = _said(backbone, texts, layer)
        target, rows = torch.zeros_like(said), torch.zeros(said.shape[:2], dtype=torch.bool)
        if self.direction == "random":
            shape = said.shape[1:] if self.fidelity == "repository" else said.shape[2:]
            strength = self.coefficient or _STRENGTH[self.fidelity]
            target = strength * random_direction(*shape, generator=generator).expand_as(said)
            for i, place in enumerate(found):
                rows[i, positions(place, policy)] = True
            return target, rows
        others = anchor_prompts(texts, concept)
        instead, answers = places(backbone, others, words=concept.anchor), _said(backbone, others, layer)
        for i, (place, other) in enumerate(zip(found, instead, strict=True)):
            for p, q in aligned(place, other, policy=policy):
                target[i, p], rows[i, p] = (self.coefficient or 1.0) * answers[i, q], True
        return target, rows


def _last_said(backbone: Backbone, *, rows: RowPolicy) -> dict[str, tuple[nn.Module, RowPolicy]]:
    """Return the last self-attention output that each thing the denoiser reads depends on, and its rows that count.

    That is the last block's, in Stable Diffusion 1 and 2. Where an encoder's rows skip its last block, the rows' is the
    last one that they come through; and a pooled vector's is the very last one, of which it reads the first end-of-text
    alone.
    """
    readers, found = backbone.text_readers, {}
    for reader in readers:
        name = "misdirection" if len(readers) == 1 else reader.network
        found[name] = (last_attention_output(reader.encoder, skipped=reader.skipped), rows)
        if reader.pooled:
            found[f"{name}, pooled"] = (last_attention_output(reader.encoder), "eot")
    return found


@torch.no_grad()
def _said(backbone: Backbone, texts: list[str], layer: nn.Module) -> Tensor:
    with captured(layer) as outputs:
        backbone.read_tokens(backbone.token_ids(texts))
    return outputs[-1].cpu()
