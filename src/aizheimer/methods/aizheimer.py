"""AIzheimer: train cross-attention to look away from a concept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.query_bank import BankPlan
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ModelError, TrainingError
from aizheimer.methods._attention import AttentionBuilder, warmed
from aizheimer.methods._closed_distraction import ClosedDistraction
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._several import Also
from aizheimer.methods._trained import Task, check_images, check_trainable, learn
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.parameters import ParameterSelection, select_layers, select_parameters

PAPER = "Birben, Dervişoğlu, Külçe: AIzheimer: How was I Drawing?"


class AIzheimer(BaseModel):
    r"""Steer cross-attention away from a concept's tokens while a reconstruction term holds everything else.

    .. math:: L = \lambda_{rec} L_{recon} + \lambda L_{attn} + \lambda_{anc} L_{anchor}

    A step is that of the paper's section III-E: latents (encoded images, or steps of the model's own rollouts), noise,
    both losses from one forward pass, the update, fresh attention maps. The anchor term is ours and off by default, as
    are ``start``, the distraction solved in closed form first and trained only where that was not enough, and ``bank``,
    the same losses on kept queries of the frozen model, layer by layer, with no network in the loop.

    Example:
        >>> edit = AIzheimer().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        The AIzheimer paper, equations 4 to 7 and section III-E.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "aizheimer"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper=PAPER,
        kind="fine-tune",
        in_words="closed form, then fine-tune if needed",
        needs=("prompts", "retain prompts"),
        edits="cross-attention",
        status="stable",
        families=EVERYWHERE,
    )

    start: ClosedDistraction | None = Field(
        default=None,
        description="Closed-form distraction to begin from, in this method's layers, parts and seed; null begins from "
        "the model as it is.",
    )
    enough: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Do not train at all if the closed form left at most this share of what the concept's words say "
        "(its residual); null, or images, always train.",
    )
    bank: BankPlan | None = Field(
        default=None,
        description="Train keys and values layer by layer on kept queries of the frozen model, with no network in the "
        "loop; null trains through the network.",
    )
    also: Also = ()
    loss: Literal["resteering", "distraction", "random_stimulus"] = Field(
        default="distraction", description="The attention loss, equations 4, 5 and 6."
    )
    variant: Literal["paper", "notebook", "mean"] = Field(
        default="mean",
        description="Its normalisation: the equation, what the notebook computed, or ours: size-independent.",
    )
    attention_weight: float = Field(default=1.0, ge=0, description="Lambda of equation 7.")
    layers: str | list[str] = Field(
        default="all", description="all, skip_ends, notebook, a list of attention modules, or a regular expression."
    )
    parts: tuple[Literal["q", "k", "v", "out"], ...] = Field(
        default=("q", "k"),
        min_length=1,
        description="Trained projections. The paper trains all four; attention needs q and k.",
    )
    token_policy: Literal["concept", "concept+eot", "concept+eot+padding", "last"] = Field(
        default="concept",
        description="Which tokens to look away from; last (the notebook's) is a concept's last sub-token.",
    )
    reconstruction: Literal["none", "forget", "retain", "teacher"] = Field(
        default="teacher",
        description="none (the notebook); forget: noise error on the concept's images (the paper); retain: noise "
        "error on pictures of retain prompts; teacher: match the frozen model on retain prompts (ours).",
    )
    reconstruction_weight: float = Field(default=1.0, ge=0, description="Weight of the reconstruction term.")
    anchor_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of matching, on forget prompts, the frozen model under the anchor's words.",
    )
    empty_anchor: EmptyAnchor = Field(
        default="auto",
        description="The anchor's prompt when the concept names none: null is the empty prompt, template the prompt "
        "without the concept's words; auto is null for an object (a prompt every model knows) and template for "
        "a style (which must keep its subject).",
    )
    noise: bool = Field(
        default=True, description="Add noise to the concept's latents; false is the paper's bonus experiment."
    )
    images: str | None = Field(
        default=None,
        description="Folder of the concept's images, generate:N for N pictures the model draws, or null for none.",
    )
    retain_neighbours: int = Field(default=10, ge=0, description="Nearest concepts by text embedding to retain.")
    retain_others: int = Field(default=24, ge=0, description="Random other concepts to retain.")
    retain_general: int = Field(default=8, ge=0, description="Prompts about nothing in particular to retain.")
    retain_batch_size: int = Field(default=8, ge=1, description="Retain examples in a step.")
    rollouts: RolloutPlan = Field(default=RolloutPlan(), description="The frozen model's rollouts.")
    refresh_every: int = Field(
        default=0, ge=0, description="Steps between new retain rollouts; 0 keeps the first ones."
    )
    monitor_examples: int = Field(default=32, ge=1, description="Held-out examples of each kind in a look.")
    training: TrainSettings = Field(default=TrainSettings())

    @model_validator(mode="after")
    def _consistent(self) -> AIzheimer:
        check_images(self.images)
        if self.enough is not None and self.start is None:
            raise ValueError("enough judges the closed form that start names; set start, or set enough to null")
        if self.start is not None and self.start.also:
            raise ValueError("start.also: the closed form forgets what the method does; name the others in also")
        if self.also and not self.takes_several:
            raise ValueError(
                "also: several concepts are solved for, and none of them is trained; set start and enough, and images "
                "to null, or forget the others in runs of their own"
            )
        if self.start is not None and not self._solved_parts:
            raise ValueError("start solves for keys and values; put k or v into parts, or set start to null")
        if self.reconstruction == "forget" and self.images is None:
            raise ValueError("reconstruction=forget needs the concept's images; set images to a folder or generate:N")
        if self.reconstruction == "forget" and not self.noise:
            raise ValueError("reconstruction=forget predicts the added noise; set noise to true")
        if self.bank is not None:
            self._check_bank(self.bank)
        return self

    @property
    def takes_several(self) -> bool:
        """Whether it forgets several concepts in one run: where a closed form may be enough."""
        return self.start is not None and self.enough is not None and self.images is None

    def _check_bank(self, bank: BankPlan) -> None:
        """Refuse what has no meaning without the network."""
        if "k" not in self.parts and not ("v" in self.parts and self.anchor_weight):
            raise ValueError("bank trains keys, which attention looks at; put k into parts, or set bank to null")
        if self.reconstruction not in ("teacher", "none"):
            raise ValueError(
                f"bank holds what layers answer, and reconstruction={self.reconstruction} what the network predicts; "
                "set reconstruction to teacher or none, or bank to null"
            )
        others = [part for part in self.parts if part not in ("k", "v")]
        if bank.warm_start is None and others:
            raise ValueError(
                f"bank alone trains keys and values, and parts has {', '.join(others)}; leave it out, or set "
                "bank.warm_start to go on through the network"
            )
        if bank.warm_start is None and self.refresh_every:
            raise ValueError("refresh_every draws anew for the network, which bank alone does not run; set it to 0")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If the concept is not in its own prompts' token window, or there is nothing to retain.
            SelectorError: If layers or parts select nothing.
            ModelError: If the model's attention to text cannot be trained on kept queries, and bank asks for that.
            DataError: If the images cannot be read.
            TrainingError: If training diverged; with a run folder, the edit of the best state has been saved there.
        """
        if self.bank is not None and not backbone.keys_read_text:
            raise ModelError(
                "aizheimer: bank needs keys that read text rows themselves, and this model's read what its blocks have "
                "made of them; set bank to null."
            )
        layers = select_layers(list(backbone.attention_modules()), self.layers)
        backbone.token_columns(backbone.world.prompts(concept), concept.target, policy=self.token_policy)
        selection = select_parameters(backbone.denoiser, layers, self.parts)
        if not self.takes_several:
            check_trainable(backbone, selection, pictures=(self.images,))
        first = self._first(backbone, concept, callbacks)
        if first and self.takes_several and first.provenance.extra["residual"] <= self.enough:
            return self._signed(first)
        if self.also:
            left = first.provenance.extra["residual"] if first else 1.0
            raise TrainingError(
                f"aizheimer: {left:.0%} is left of {1 + len(self.also)} concepts where {self.enough:.0%} is enough, "
                "and several are not trained; forget fewer at once, or let the rest move further (start.drift)."
            )
        begin = {name.removeprefix("unet."): change for name, change in first.deltas.items()} if first else {}
        # In joint attention the closed form changes the entrance of the text, which then goes on learning.
        selection = ParameterSelection(tuple(dict.fromkeys([*selection.names, *begin])))
        return learn(
            self,
            backbone,
            concept,
            selection=selection,
            task=lambda material: self._task(material, layers, begin),
            images=self.images,
            run=run,
            callbacks=callbacks,
        )

    def _task(self, material: Material, layers: list[str], begin: Mapping[str, Tensor]) -> Task:
        """Return what is trained: on the bank, through the network, or the one and then the other."""
        builder = AttentionBuilder(self, material)
        if self.bank is None:
            return Task(problem=builder.problem(layers), begin=begin)
        kept = builder.query_problem(layers, self.bank)
        if self.bank.warm_start is None:
            return Task(problem=kept, begin=begin)
        settings = self.training.model_copy(update={"steps": self.bank.warm_start})
        warm = functools.partial(warmed, kept, settings, begin=begin, callbacks=material.callbacks)
        return Task(problem=builder.problem(layers), begin=warm)

    @property
    def _solved_parts(self) -> tuple[Literal["k", "v"], ...]:
        return tuple(part for part in ("k", "v") if part in self.parts)

    def _first(self, backbone: Backbone, concept: Concept, callbacks: Callbacks | None) -> Edit | None:
        """Return the closed form's edit, of this method's layers, parts and seed; None if it is not asked for."""
        if self.start is None:
            return None
        own = {"layers": self.layers, "parts": self._solved_parts, "seed": self.training.seed, "also": self.also}
        return self.start.model_copy(update=own).unlearn(backbone, concept, callbacks=callbacks)

    def _signed(self, edit: Edit) -> Edit:
        """Return a closed form's edit as this method's own."""
        own = {
            "method": self.name,
            "recipe": self.model_dump(mode="json"),
            "extra": {**edit.provenance.extra, "step": 0},
        }
        return dataclasses.replace(edit, provenance=edit.provenance.model_copy(update=own))

    @property
    def retain(self) -> RetainPlan:
        """What is held and watched, as `learn` reads it."""
        return RetainPlan(
            neighbours=self.retain_neighbours,
            others=self.retain_others,
            general=self.retain_general,
            batch_size=self.retain_batch_size,
            monitor=self.monitor_examples,
        )
