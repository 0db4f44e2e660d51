"""Closed-form distraction: AIzheimer's goal without its training loop."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention
from aizheimer.data.average_rows import average_pairs
from aizheimer.data.captioned import concept_words
from aizheimer.data.latents import rollout
from aizheimer.data.rows import Prompts, RowAnchor, RowPairs, RowPolicy, prompt_rows
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import ModelError
from aizheimer.methods._closed_form import (
    KeyOrValue,
    Layers,
    RetainGeneral,
    RetainNeighbours,
    RetainOthers,
    Target,
    Task,
    begin,
    prior_sums,
    stacked,
    target_pairs,
)
from aizheimer.methods._distraction import Distraction
from aizheimer.methods._revival import revivable, revived, undoing
from aizheimer.methods._several import Also
from aizheimer.methods.base import UNETS, MethodInfo, check_family
from aizheimer.modules.query_metric import query_moments
from aizheimer.modules.ridge import RidgeSums
from aizheimer.modules.subspace import constrained_ridge, null_space

SHIFTED = 0.1
"""Lengths of a row within which its worst shift is looked for: where on a model without an edit a soft prompt begins to
turn neighbours into the target."""


class ClosedDistraction(BaseModel):
    r"""Give the concept's tokens the attention that nothing gets, as far as the image's queries can see, in one solve.

    A query :math:`q` sees of a token :math:`e` only :math:`q \cdot W e`. With target rows :math:`e_t`, anchor rows
    :math:`e_a` and the queries' second moment :math:`C` from a few passes of the model itself, the new keys minimise

    .. math:: \mathbb{E}_q \operatorname{mean}_t \big(q \cdot (W' e_t - W e_a)\big)^2
        + \beta\, \bar c \operatorname{mean}_r \lVert (W' - W) e_r \rVert^2
        + \lambda\, \bar c\, \lVert W' - W \rVert_F^2 ;

    see `aizheimer.modules.query_metric`. Values, which no query looks at, are replaced by the same problem with
    :math:`C = I`, which is ridge regression; or, with ``values="null-space"``, by SPEED's, which moves no retained row.

    Example:
        >>> edit = ClosedDistraction().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        The goal is AIzheimer's distraction loss, equation 5 (Birben, Dervişoğlu, Külçe); the closed form is ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "closed-distraction"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="aizheimer: the distraction loss of AIzheimer, equation 5, solved in closed form",
        kind="closed form",
        needs=("retain prompts",),
        edits="cross-attention keys and values",
        status="stable",
        families={**UNETS, "sd3": ("metric=identity",), "flux": ("metric=identity",)},
    )

    also: Also = ()
    rows: tuple[RowPolicy, ...] = Field(
        default=("concept", "others"),
        min_length=1,
        description="Rows to replace: the concept's own sub-tokens, and all others of its prompts, which have read it.",
    )
    prompts: Prompts = Field(
        default="both", description="Prompts that the concept is read in: bare words, templates, or both."
    )
    synonyms: tuple[str, ...] | None = Field(
        default=(),
        description="Further words whose rows are replaced like the concept's; null for the world's own, and those of "
        "the concepts of also.",
    )
    empty_anchor: RowAnchor = Field(
        default="average",
        description="What stands for an anchor without words: average, the mean row of the world's other concepts in "
        "the concept's place; template, the prompt without the concept's words; or null, the empty prompt.",
    )
    average_of: int = Field(default=512, ge=1, description="Most concepts in that average, a seeded choice.")
    preserve: float = Field(default=1.0, ge=0, description="Beta, the weight of the retained rows' mean.")
    prior: float = Field(default=1.0, ge=0, description="Weight of the mean over everyday prompts of the world.")
    prior_prompts: int = Field(default=2048, ge=1, description="Most everyday prompts that are read.")
    residual: float | None = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Hold the rest as firmly as leaves this share of what the concept's words say: preserve, prior and "
        "ridge are multiplied by what does; null takes them as they are.",
    )
    drift: float | None = Field(
        default=0.3,
        gt=0,
        description="Of several concepts: hold the rest so firmly that retained rows move by no more than this share, "
        "even if more of the concepts is left than residual says; null is no limit.",
    )
    ridge: float = Field(
        default=0.01,
        gt=0,
        description="Lambda, rows having a mean square of 1. A larger one makes the edit harder to undo by shifting "
        "the prompt's embedding (revivable in the edit's record), and moves neighbours more.",
    )
    rounds: int = Field(
        default=0,
        ge=0,
        description="Times that rows are searched for which bring the concept back (RECE's closed-form attack), and "
        "all is solved anew from the original weights with these among the concept's own.",
    )
    damping: float = Field(default=0.01, gt=0, description="Mu of that search, which keeps found rows short; see rece.")
    metric: Literal["queries", "identity"] = Field(
        default="queries", description="What keys are measured by: the image's queries, or all directions alike."
    )
    values: Literal["ridge", "null-space"] = Field(
        default="ridge",
        description="How values are replaced: held as firmly as the keys, or in the null space of the retained rows.",
    )
    tolerance: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Of that null space: singular values below this share of the retained rows' norm count as zero.",
    )
    pictures: int = Field(
        default=8, ge=1, description="Pictures that are begun to see queries, at least one of every concept."
    )
    picture_steps: int = Field(default=4, ge=1, description="Denoising steps of each.")
    layers: Layers = "all"
    parts: tuple[KeyOrValue, ...] = Field(default=("k", "v"), min_length=1, description="Edited projections.")
    retain_neighbours: RetainNeighbours = 10
    retain_others: RetainOthers = 24
    retain_general: RetainGeneral = 8
    seed: int = Field(default=0, ge=0, description="Of the pictures that are begun, and of what is retained.")

    @model_validator(mode="after")
    def _consistent(self) -> ClosedDistraction:
        if self.residual is not None and not self.preserve + self.prior:
            raise ValueError("residual sets how firmly the rest is held, and preserve and prior are 0; set it to null")
        return self

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If concept or anchor are cut off, or there is nothing to retain.
            SelectorError: If layers or parts select nothing.
        """
        self._check_metric(backbone)
        task = begin(backbone, concept, method=self, prompts=self.prompts, callbacks=callbacks)
        each = self._pairs(task)
        pairs = stacked(each)
        retained = prompt_rows(backbone, ["", *task.retained.prompts], policy="all", scale=task.scale)
        held = RidgeSums.keep(retained).mean().times(self.preserve)
        held += prior_sums(task, prompts=self.prior_prompts).times(self.prior)
        problem = Distraction(
            weights=task.weights,
            metrics=self._metrics(task),
            held=held.gram,
            ridge=self.ridge,
            targets=each,
            retained=retained,
            fixed=self._null_space_values(task, pairs, retained=retained),
        )
        erase, attacks = [RidgeSums.of(one.keys, one.sources).mean() for one in each], []
        changes, told = problem.solved(erase, residual=self.residual, drift=self.drift)
        for _ in range(self.rounds):
            edited = {name: weight + changes[name] for name, weight in task.weights.items()}
            undone = undoing(edited, task.weights, damping=self.damping).T
            found = [RowPairs(keys=one.keys @ undone, sources=one.sources) for one in each]
            attacks.append(revived(edited, task.weights, found=stacked(found).keys, pairs=pairs))
            erase = [sums + RidgeSums.of(one.keys, one.sources).mean() for sums, one in zip(erase, found, strict=True)]
            changes, told = problem.solved(erase, residual=self.residual, drift=self.drift)
        edited = {name: weight + changes[name] for name, weight in task.weights.items()}
        told["revivable"] = revivable(edited, task.weights, pairs=pairs, radius=SHIFTED)
        return task.edit(self, changes, **told, **({"revived": attacks} if attacks else {}))

    def _check_metric(self, backbone: Backbone) -> None:
        check_family(self, backbone)
        if self.metric == "queries" and "metric=identity" in self.info.families[backbone.family]:
            raise ModelError(
                "closed-distraction: metric=queries needs keys that read text rows themselves, and this model's read "
                "what its blocks have made of them; set metric to identity."
            )

    def _null_space_values(self, task: Task, pairs: RowPairs, *, retained: Tensor) -> dict[str, Tensor]:
        """Return the values' changes where they are replaced in the null space of the retained rows."""
        if self.values == "ridge":
            return {}
        free = null_space(retained, tolerance=self.tolerance)
        nothing = retained[:0]
        change = constrained_ridge(pairs.keys, pairs.sources, free=free, invariant=nothing, ridge=self.ridge)
        return {name: weight @ change for name, weight in task.weights.items() if name.endswith("to_v.weight")}

    def _pairs(self, task: Task) -> list[RowPairs]:
        """Return the rows of each target, and of its synonyms, and what should answer in their place."""
        spoken = [[target, *self._synonyms(task, target)] for target in task.targets]
        found = iter(self._answered(task, [one for words in spoken for one in words]))
        return [stacked(list(itertools.islice(found, len(words)))) for words in spoken]

    def _synonyms(self, task: Task, target: Target) -> list[Target]:
        """Return a target under its other names: given ones are the concept's, the world's are every target's."""
        given = self.synonyms if self.synonyms is None or target is task.targets[0] else ()
        words = concept_words(target.concept, task.backbone.world, given)[1:]
        others = [replace(target.concept, target=word) for word in words]
        return [Target.of(task.backbone, other, which=self.prompts) for other in others]

    def _answered(self, task: Task, targets: list[Target]) -> list[RowPairs]:
        """Return the rows of each, and those of its anchor; those that have none share the averages they are given."""
        found: dict[int, RowPairs] = {}
        averaged: dict[tuple[str, ...], list[int]] = {}
        for number, target in enumerate(targets):
            if target.concept.anchor or self.empty_anchor != "average":
                empty = "auto" if self.empty_anchor == "average" else self.empty_anchor
                found[number] = target_pairs(task, policy=self.rows, empty=empty, targets=[target])[0]
            else:
                averaged.setdefault(self._other_words(task, target.concept), []).append(number)
        for words, numbers in averaged.items():
            pairs = average_pairs(
                task.backbone,
                [(targets[number].concept, targets[number].prompts) for number in numbers],
                policy=self.rows,
                words=words,
                scale=task.scale,
                progress=lambda done, total: task.callbacks.on_progress("average", done, total),
            )
            found |= dict(zip(numbers, pairs, strict=True))
        return [found[number] for number in range(len(targets))]

    def _other_words(self, task: Task, concept: Concept) -> tuple[str, ...]:
        """Return words of the concept's kind that mention neither it nor any target."""
        own = mention(concept.target)
        words = [word for word in task.unmentioned(task.backbone.world.labels(concept.kind)) if not own.search(word)]
        order = torch.randperm(len(words), generator=generator_for(self.seed, "average"))[: self.average_of].tolist()
        return tuple(words[i] for i in order)

    def _metrics(self, task: Task) -> dict[str, Tensor]:
        """Return the queries' second moments by layer, from pictures of the targets that the model begins to draw."""
        if self.metric == "identity" or "k" not in self.parts:
            return {}
        backbone = task.backbone
        modules = {name: module for name, module in backbone.attention_modules().items() if name in task.layers}
        # One prompt of each target, then a second of each, in an order that does not depend on the targets'.
        several = sorted((target.prompts for target in task.targets), key=lambda prompts: prompts[0].casefold())
        prompts = [text for turn in itertools.zip_longest(*several) for text in turn if text is not None]
        pictures = max(self.pictures, len(several))
        with query_moments(modules) as moments:
            rollout(
                backbone,
                backbone.condition(prompts),
                null_embedding=backbone.condition([""]),
                prompt_index=torch.arange(pictures) % len(prompts),
                steps=self.picture_steps,
                guidance=backbone.world.guidance,
                generator=generator_for(self.seed, "queries"),
                progress=lambda done, total: task.callbacks.on_progress("queries", done, total),
            )
        return {name: moments.metric(name).cpu() for name in modules}
