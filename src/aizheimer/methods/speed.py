"""SPEED: replace the concept's values inside the null space of what is retained."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor
from aizheimer.data.rows import Prompts, RowPairs, RowPolicy, encode_rows, prompt_rows
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.methods._closed_form import (
    KeyOrValue,
    Layers,
    RetainGeneral,
    RetainNeighbours,
    RetainOthers,
    begin,
    outcome,
    stacked,
    target_pairs,
)
from aizheimer.methods._several import Also
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.subspace import NullSpace, centroids, constrained_ridge, null_space


class SPEED(BaseModel):
    r"""Replace the concept's values by an anchor's, in directions that retained rows do not use.

    Per layer: keep the retained rows that a free edit would move more than average (influence-based prior filtering);
    add noisy copies of rows along the direction that the weights see least (directed prior augmentation); let
    :math:`P` project onto what these leave free; then, with the begin-of-text row and three centroids of the empty
    prompt as invariant rows :math:`C_2` (invariant equality constraints),
    :math:`\Delta W = W (A - T) P Q M`; see `aizheimer.modules.subspace.constrained_ridge`.

    Example:
        >>> edit = SPEED().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Li et al., SPEED: Scalable, Precise, and Efficient Concept Erasure, arXiv:2503.07392.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "speed"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Li et al., SPEED: Scalable, Precise, and Efficient Concept Erasure, arXiv:2503.07392",
        kind="closed form",
        needs=("retain prompts",),
        edits="cross-attention values",
        status="stable",
        families=EVERYWHERE,
    )

    also: Also = ()
    rows: RowPolicy = Field(
        default="last", description="Rows to replace, and of retained texts to keep; last sub-token in the paper."
    )
    prompts: Prompts = Field(
        default="bare", description="Prompts that the concept is read in: bare words (the paper), templates, or both."
    )
    empty_anchor: EmptyAnchor = Field(
        default="null",
        description="What stands for an anchor without words: null is the first end-of-text row of the empty prompt "
        "(the published code takes begin-of-text), template that of the prompt without the concept's words.",
    )
    ridge: float = Field(
        default=1.0,
        gt=0,
        description="Lambda_r of one concept, rows having a mean square of 1. Divided by the number of concepts, whose "
        "rows are averaged: each is replaced as far as alone. The paper takes 1, and 0.05 for 10 or more.",
    )
    invariant_ridge: float = Field(default=0.0, ge=0, description="Lambda_c; 0 in the paper: exactly invariant.")
    tolerance: float = Field(
        default=1e-10,
        ge=0,
        lt=1,
        description="Singular values below this share of the retained rows' norm count as zero. Ours, so that retained "
        "rows are exact; the paper's tau is an absolute eigenvalue, 0.1 for few concepts, which for rows of CLIP is "
        "0.011 here (the root of 0.1 / 768), and 1e-4 for many, which is 0.0004.",
    )
    filter: bool = Field(default=True, description="Keep only retained rows that move more than average (IPF).")
    copies: int = Field(default=10, ge=0, description="Noisy copies of each retained row (DPA); 10 in the paper.")
    direction: Literal["paper", "repository"] = Field(
        default="paper",
        description="What the noise is along: the direction that the weights see least, or, as the published code does "
        "by a reduced decomposition, the one that they see least but do see. Different where outputs are fewer.",
    )
    invariant: int = Field(
        default=3,
        ge=0,
        description="Centroids of the empty prompt's rows that stay, with begin-of-text (IEC); 0: none.",
    )
    layers: Layers = "all"
    parts: tuple[KeyOrValue, ...] = Field(
        default=("v",), min_length=1, description="Edited projections; v in the paper."
    )
    retain_neighbours: RetainNeighbours = 10
    retain_others: RetainOthers = 24
    retain_general: RetainGeneral = 8
    seed: int = Field(default=0, description="Of the noise, the centroids, and of which other concepts are retained.")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If concept or anchor are cut off, or there is nothing to retain.
            SelectorError: If layers or parts select nothing.
            RecipeError: If retained rows leave no direction free.
        """
        task = begin(backbone, concept, method=self, prompts=self.prompts, callbacks=callbacks)
        pairs = stacked(target_pairs(task, policy=self.rows, empty=self.empty_anchor))
        retained = prompt_rows(backbone, task.retain_texts, policy=self.rows, scale=task.scale)
        invariant = self._invariant(encode_rows(backbone, [""], scale=task.scale)[0])
        changes, free = {}, []
        for name, weight in task.weights.items():
            rows = self.retained_rows(
                weight, pairs, retained=retained, generator=generator_for(self.seed, "copies", name)
            )
            free.append(null_space(rows, tolerance=self.tolerance))
            changes[name] = weight @ constrained_ridge(
                pairs.keys,
                pairs.sources,
                free=free[-1],
                invariant=invariant,
                ridge=self.ridge / len(task.targets),
                invariant_ridge=self.invariant_ridge,
            )
        extra = outcome(task.weights, changes, pairs=pairs, retained=retained)
        return task.edit(self, changes, **extra, **_record(free))

    def retained_rows(self, weight: Tensor, pairs: RowPairs, *, retained: Tensor, generator: torch.Generator) -> Tensor:
        """Return the rows that one layer must not move: those it would move most, and noisy copies.

        Args:
            weight: (out, dim) the layer's weights.
            pairs: Rows to replace.
            retained: (n, dim) candidates.
            generator: Draws the noise.
        """
        shift = _free_shift(weight, pairs)
        rows = [_above_mean(retained, shift) if self.filter else retained]
        if self.copies:
            _, _, right = torch.linalg.svd(weight, full_matrices=self.direction == "paper")
            noise = torch.randn(self.copies * len(retained), weight.shape[1], generator=generator).double()
            # Noise in all directions, seen along one only: its share along that direction is normal again.
            copies = retained.repeat(self.copies, 1) + (noise @ right[-1])[:, None] * right[-1]
            rows.append(_above_mean(copies, shift) if self.filter else copies)
        return torch.cat(rows)

    def _invariant(self, null: Tensor) -> Tensor:
        if self.invariant == 0:
            return null[:0]
        return torch.cat([null[:1], centroids(null[1:], self.invariant, generator=generator_for(self.seed, "iec"))])


def _free_shift(weight: Tensor, pairs: RowPairs) -> Tensor:
    """Return what an edit that retains nothing would change: W (A - T) (I + T)^-1."""
    keys, count = pairs.keys, len(pairs.keys)
    held = keys.T @ keys / count + torch.eye(keys.shape[1], dtype=keys.dtype)
    drift = (pairs.sources - keys).T @ keys / count
    return torch.linalg.solve(held, (weight @ drift).T).T


def _above_mean(rows: Tensor, shift: Tensor) -> Tensor:
    """Return the rows that a change moves at least as much as their average."""
    moved = (rows @ shift.T).norm(dim=1)
    return rows[moved >= moved.mean()]


def _record(free: list[NullSpace]) -> dict[str, Any]:
    return {"retained_rank": max(one.rank for one in free), "leakage": max(one.leakage for one in free)}
