"""What every closed-form method does before and after it solves: check, read rows, tell, and write the edit down."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention
from aizheimer.data.anchors import EmptyAnchor
from aizheimer.data.retain import RetainSet, retain_set
from aizheimer.data.rows import (
    Prompts,
    RowPairs,
    RowPolicy,
    anchor_pairs,
    encode_rows,
    forget_prompts,
    places,
    row_scale,
)
from aizheimer.edits.edit import Edit
from aizheimer.edits.provenance import ConceptRecord, Provenance, base_name
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError
from aizheimer.methods._several import named_beside
from aizheimer.methods.base import check_family
from aizheimer.modules.parameters import select_layers
from aizheimer.modules.ridge import RidgeSums, projection_weights

KeyOrValue = Literal["k", "v"]

Layers = Annotated[
    str | list[str],
    Field(description="all, skip_ends, notebook, a list of attention modules, or a regular expression."),
]
RetainNeighbours = Annotated[int, Field(ge=0, description="Nearest concepts by text embedding to retain (ours).")]
RetainOthers = Annotated[int, Field(ge=0, description="Random other concepts to retain (ours).")]
RetainGeneral = Annotated[int, Field(ge=0, description="Prompts about nothing in particular to retain (ours).")]

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Target:
    """One of the concepts to forget.

    Args:
        concept: The concept; one that was named as ``also`` has no anchor.
        prompts: Prompts that its rows are read in.
    """

    concept: Concept
    prompts: list[str]

    @classmethod
    def of(cls, backbone: Backbone, concept: Concept, *, which: Prompts) -> Target:
        """Read a concept in the prompts of its kind.

        Raises:
            ConceptError: If it is cut off in one of them.
        """
        return cls(concept=concept, prompts=forget_prompts(backbone, concept, which=which))


@dataclass(frozen=True, kw_only=True)
class Task:
    """Concepts, a model, and what of the model a closed form may change.

    Args:
        backbone: The model.
        targets: What to forget: the concept, and what is forgotten with it.
        layers: Names of the attention modules.
        weights: Original weights in float64 by parameter name in the denoiser.
        retained: What must stay.
        scale: What text rows are divided by.
        seed: Of everything random.
        callbacks: Told what happens.
    """

    backbone: Backbone
    targets: tuple[Target, ...]
    layers: list[str]
    weights: dict[str, Tensor]
    retained: RetainSet
    scale: float
    seed: int
    callbacks: Callbacks

    @property
    def concept(self) -> Concept:
        """The concept, first of the targets."""
        return self.targets[0].concept

    @property
    def prompts(self) -> list[str]:
        """The prompts that the concept's own rows are read in."""
        return self.targets[0].prompts

    def unmentioned(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that have no target's words in them, as words."""
        words = mention(*(target.concept.target for target in self.targets))
        return [text for text in texts if not words.search(text)]

    @property
    def labels(self) -> list[str]:
        """Bare words to retain: the user's, the neighbours, the others."""
        names = [*self.retained.kept, *(name for name, _ in self.retained.neighbours), *self.retained.others]
        return self.unmentioned(list(dict.fromkeys(names)))

    @property
    def retain_texts(self) -> list[str]:
        """The labels, and general prompts: what to retain as short texts, whose last token has read all of it."""
        general = set(self.backbone.world.general_prompts)
        return self.labels + [prompt for prompt in self.retained.prompts if prompt in general]

    def edit(self, method: BaseModel, changes: Mapping[str, Tensor], **extra: Any) -> Edit:
        """Return the edit that adds changes to the original weights.

        Args:
            method: The method, whose fields become the recipe.
            changes: Float64 change by parameter name.
            **extra: Anything else worth keeping, as JSON.
        """
        if "residual" in extra:
            self.callbacks.on_solved(extra)
        provenance = Provenance(
            method=type(method).name,  # type: ignore[attr-defined]
            concept=ConceptRecord.of(self.concept),
            base_fingerprint=self.backbone.fingerprint(),
            base_name=base_name(self.backbone.pipe.name_or_path),
            recipe=method.model_dump(mode="json"),
            seed=self.seed,
            extra={"neighbours": [list(pair) for pair in self.retained.neighbours], **extra},
        )
        # The change itself is rounded to float32, not the difference of two rounded weights.
        nothing = {name: torch.zeros_like(change) for name, change in changes.items()}
        return Edit.between(nothing, changes, provenance=provenance)


def begin(
    backbone: Backbone, concept: Concept, *, method: BaseModel, prompts: Prompts, callbacks: Callbacks | None
) -> Task:
    """Check everything that was typed, choose what to retain, and tell.

    Args:
        backbone: The model.
        concept: What to forget.
        method: Has the fields ``layers``, ``parts``, ``seed`` and ``retain_neighbours``, ``_others`` and ``_general``;
            if it takes several concepts, ``also``.
        prompts: Which prompts the concepts' rows are read in.
        callbacks: Told what will be done.

    Raises:
        SelectorError: If layers or parts select nothing.
        ConceptError: If a concept is cut off, one of ``also`` is the concept itself or also kept, or nothing is left
            to retain.
    """
    options: Any = method
    check_family(options, backbone)
    callbacks = callbacks or Callbacks()
    modules = backbone.attention_modules()
    layers = select_layers(list(modules), options.layers)
    weights = projection_weights(backbone.text_projections(layers, options.parts))
    others = [named_beside(backbone.world, words, concept, field="also") for words in getattr(options, "also", ())]
    targets = tuple(Target.of(backbone, one, which=prompts) for one in (concept, *others))
    retained = retain_set(
        backbone,
        concept,
        neighbours=options.retain_neighbours,
        others=options.retain_others,
        general=options.retain_general,
        generator=generator_for(options.seed, "retain"),
        also=others,
    )
    callbacks.on_data(
        {
            "forget_prompts": [text for target in targets for text in target.prompts],
            **retained.summary(),
            "layers": layers,
            "parameters": list(weights),
        }
    )
    return Task(
        backbone=backbone,
        targets=targets,
        layers=layers,
        weights=weights,
        retained=retained,
        scale=row_scale(backbone),
        seed=options.seed,
        callbacks=callbacks,
    )


def prior_sums(task: Task, *, prompts: int, padding: bool = True) -> RidgeSums:
    """Return the mean moment of everyday prompts, to hold the rest of the model in place.

    Papers take captions of COCO. Here the world's own vocabulary in its own templates stands in: it needs no download,
    and covers what the model draws. Prompts with a target's words are left out.

    Args:
        task: Names world and targets.
        prompts: How many of them, a seeded choice.
        padding: Count the rows after the first end-of-text too.

    Raises:
        ConceptError: If none is left.
    """
    world = task.backbone.world
    texts = [text for item in world.vocabulary for text in world.prompts_for(item.label)]
    texts = task.unmentioned([*texts, *world.general_prompts])
    if not texts or prompts < 1:
        raise ConceptError(f"no prompt of the world '{world.name}' is left beside '{task.concept.target}' as a prior.")
    order = torch.randperm(len(texts), generator=generator_for(task.seed, "prior")).tolist()[:prompts]
    total: RidgeSums | None = None
    for start in range(0, len(order), _BATCH):
        batch = [texts[i] for i in order[start : start + _BATCH]]
        rows = encode_rows(task.backbone, batch, scale=task.scale)
        if padding:
            kept = rows.flatten(0, 1)
        else:
            # Every text encoder's window has an end of its own.
            windows = range(len(task.backbone.windows))
            ends = [places(task.backbone, batch, words="", window=window) for window in windows]
            kept = torch.cat(
                [
                    one[place.start : place.start + place.eot + 1]
                    for one, *each in zip(rows, *ends, strict=True)
                    for place in each
                ]
            )
        part = RidgeSums.keep(kept)
        total = part if total is None else total + part
    return total.mean()  # type: ignore[union-attr]


def target_pairs(
    task: Task,
    *,
    policy: RowPolicy | tuple[RowPolicy, ...],
    empty: EmptyAnchor = "auto",
    targets: Sequence[Target] | None = None,
) -> list[RowPairs]:
    """Return every target's rows in its own prompts, and the rows of its own anchor that should answer in their place.

    Args:
        task: Names the targets.
        policy: Which rows, see `aizheimer.data.rows.RowPolicy`.
        empty: What stands for an anchor without words; those of ``also`` have none.
        targets: Other targets than the task's.

    Raises:
        ConceptError: If an anchor is cut off, or no row of a target has a counterpart.
    """
    return [
        anchor_pairs(
            task.backbone, target.prompts, concept=target.concept, policy=policy, empty=empty, scale=task.scale
        )
        for target in (task.targets if targets is None else targets)
    ]


def stacked(pairs: Sequence[RowPairs]) -> RowPairs:
    """Return all rows one below the other."""
    return RowPairs(keys=torch.cat([one.keys for one in pairs]), sources=torch.cat([one.sources for one in pairs]))


def mean_sums(pairs: Sequence[RowPairs]) -> RidgeSums:
    """Return the sum of every target's mean moments: beside what is retained each counts as much as if it were alone.

    So does each in the sums over rows of UCE and MACE; a mean over all of them would be weaker the more there are.
    """
    return functools.reduce(operator.add, [RidgeSums.of(one.keys, one.sources).mean() for one in pairs])


def outcome(
    weights: Mapping[str, Tensor], changes: Mapping[str, Tensor], *, pairs: RowPairs, retained: Tensor
) -> dict[str, float]:
    r"""Measure an edit on the text alone, without a picture.

    Args:
        weights: Original weights :math:`W`.
        changes: :math:`\Delta` by the same names.
        pairs: The target's rows :math:`k` and the rows :math:`s` that should answer in their place.
        retained: Rows :math:`r` that should answer as before.

    Returns:
        ``residual``, the mean over layers of :math:`\lVert (W + \Delta) k - W s \rVert / \lVert W k - W s \rVert`: 1
        when nothing was replaced, 0 when all was; and ``drift``, that of :math:`\lVert \Delta r \rVert / \lVert W r
        \rVert`.
    """
    residuals, drifts = [], []
    for name, weight in weights.items():
        gap = weight @ (pairs.keys - pairs.sources).T
        residuals.append(_ratio(gap + changes[name] @ pairs.keys.T, gap))
        drifts.append(_ratio(changes[name] @ retained.T, weight @ retained.T))
    return {"residual": sum(residuals) / len(residuals), "drift": sum(drifts) / len(drifts)}


def _ratio(part: Tensor, whole: Tensor) -> float:
    size = float(whole.norm())
    return float(part.norm()) / size if size > 0 else 0.0


def through_all(weights: Mapping[str, Tensor], text_change: Tensor) -> dict[str, Tensor]:
    """Return every layer's change ``W D`` for one map of the text."""
    return {name: weight @ text_change for name, weight in weights.items()}
