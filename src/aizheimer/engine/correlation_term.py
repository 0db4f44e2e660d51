"""SepME's terms: correlation with the frozen model's concept, and the size of the change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions, expanded, joined
from aizheimer.data.sources import Source
from aizheimer.engine.batch_shares import predict
from aizheimer.engine.problem import Loss
from aizheimer.objectives.correlation import balancing_weights, change_l1, concept_correlation


@dataclass(frozen=True, kw_only=True)
class CorrelationTerm:
    r"""What the concept adds to the prediction, correlated with what it used to add; see `concept_correlation`.

    Args:
        backbone: The network being edited.
        source: Where latents come from: noised pictures of the concept.
        embeddings: The concept's prompts.
        null_embedding: The empty prompt.
        batch_size: Examples in a batch.
        teacher: A context in which the network is the frozen model.
        null_is_kept: Whether the edit cannot change the empty prompt's prediction, so that the frozen model's will do.
        name: What the loss is called.
    """

    backbone: Backbone
    source: Source
    embeddings: Conditions
    null_embedding: Conditions
    batch_size: int
    teacher: Callable[[], AbstractContextManager[Any]]
    null_is_kept: bool
    name: str = "correlation"

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, by the term's name."""
        draw = self.source.draw(self.batch_size, step=step, generator=generator)
        words = self.embeddings[draw.prompt_index].to(draw.x_t)
        null = expanded(self.null_embedding.to(draw.x_t), len(words))
        with torch.no_grad(), self.teacher():
            both = predict(self.backbone, torch.cat([draw.x_t] * 2), torch.cat([draw.t] * 2), joined([words, null]))
        teacher, teacher_null = both.chunk(2)
        student = predict(self.backbone, draw.x_t, draw.t, words)
        student_null = teacher_null if self.null_is_kept else predict(self.backbone, draw.x_t, draw.t, null)
        term = concept_correlation(student, student_null, teacher, teacher_null)
        return {self.name: Loss(term.total, 1.0, term.parts)}


@dataclass(frozen=True, kw_only=True)
class SimultaneousTerm:
    r"""The correlations of several concepts, :math:`\sum_j \eta_j L_j`, each on its own pictures.

    Args:
        terms: One for each concept, of different names.
        limit: The largest weight; see `balancing_weights`.
    """

    terms: Sequence[CorrelationTerm]
    limit: float

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return every concept's loss by its name, weighted against the largest."""
        found = {name: loss for term in self.terms for name, loss in term.losses(step, generator).items()}
        weights = balancing_weights([float(loss.value.detach()) for loss in found.values()], limit=self.limit)
        return {name: replace(found[name], weight=weight) for name, weight in zip(found, weights, strict=True)}


@dataclass(frozen=True, kw_only=True)
class ChangeTerm:
    """The L1 norm of the weights' changes.

    Args:
        changes: Returns the change of each layer's weight, in the autograd graph.
        weight: Its weight in the sum.
    """

    changes: Callable[[], Mapping[str, Tensor]]
    weight: float

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, "l1"; neither argument matters."""
        term = change_l1(self.changes())
        return {"l1": Loss(term.total, self.weight, term.parts, "retain")}
