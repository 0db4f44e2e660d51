"""DP: send the concept to its shadow in a safe subspace, along what retained rows leave free."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.rows import Prompts, RowPairs, RowPolicy, anchor_pairs, prompt_rows
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.methods._closed_form import (
    KeyOrValue,
    Layers,
    RetainGeneral,
    RetainNeighbours,
    RetainOthers,
    Task,
    begin,
    outcome,
    through_all,
)
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.subspace import double_projection, null_space, orthonormal_basis


class DP(BaseModel):
    r"""Replace the concept's rows by their projections onto safe rows, by a change that moves no retained row.

    With safe rows :math:`S`, the proxy of a target :math:`c` is :math:`c^* = S (S^\top S)^+ S^\top c`. With :math:`N`
    an orthonormal basis of what retained rows leave free and :math:`x = N^\top c`,

    .. math:: \Delta W = W (c^* - c) \frac{x^\top}{\lVert x \rVert^2} N^\top,

    which is exact on both sides: :math:`(W + \Delta W) c = W c^*` and :math:`\Delta W r = 0`.

    Example:
        >>> edit = DP().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Double projections for concept erasure, CVPR 2026; taken from notes on the paper, no code was read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "dp"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Concept erasure by double projections (DP), CVPR 2026; no arXiv id known to us",
        kind="closed form",
        needs=("retain prompts",),
        edits="cross-attention keys and values",
        status="stable",
        families=EVERYWHERE,
    )

    rows: RowPolicy = Field(default="last", description="Rows to replace, and of safe and retained texts (ours).")
    prompts: Prompts = Field(default="bare", description="Prompts that the concept is read in (ours).")
    safe: tuple[str, ...] = Field(
        default=(),
        description="Safe concepts beside the anchor. With neither, the general prompts of the world and the empty "
        "prompt's first end-of-text row are safe.",
    )
    tolerance: float = Field(
        default=1e-10,
        ge=0,
        lt=1,
        description="Singular values below this share of the retained rows' norm count as zero; small: exact.",
    )
    retain_rank: int | None = Field(
        default=None,
        ge=1,
        description="Retain only so many of the strongest directions, for more concepts than fit; edit.json tells the "
        "leakage. By default all.",
    )
    layers: Layers = "all"
    parts: tuple[KeyOrValue, ...] = Field(
        default=("k", "v"), min_length=1, description="Edited projections; both in the paper."
    )
    retain_neighbours: RetainNeighbours = 10
    retain_others: RetainOthers = 24
    retain_general: RetainGeneral = 8
    seed: int = Field(default=0, description="Chooses which other concepts are retained; nothing else is random.")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If a concept is cut off, there is nothing to retain, or retained rows span the target's.
            SelectorError: If layers or parts select nothing.
            RecipeError: If retained rows leave no direction free.
        """
        task = begin(backbone, concept, method=self, prompts=self.prompts, callbacks=callbacks)
        pairs = anchor_pairs(backbone, task.prompts, concept=concept, policy=self.rows, empty="null", scale=task.scale)
        retained = prompt_rows(backbone, task.retain_texts, policy=self.rows, scale=task.scale)
        safe = self._safe(task)
        free = null_space(retained, tolerance=self.tolerance, max_rank=self.retain_rank)
        changes = through_all(task.weights, double_projection(pairs.keys, safe, free=free))
        span = orthonormal_basis(safe)
        reached = RowPairs(keys=pairs.keys, sources=pairs.keys @ span @ span.T)
        extra = outcome(task.weights, changes, pairs=reached, retained=retained)
        return task.edit(self, changes, **extra, retained_rank=free.rank, leakage=free.leakage)

    def _safe(self, task: Task) -> Tensor:
        words = [word for word in (task.concept.anchor, *self.safe) if word]
        if words:
            return prompt_rows(task.backbone, words, policy=self.rows, scale=task.scale)
        general = prompt_rows(task.backbone, task.backbone.world.general_prompts, policy=self.rows, scale=task.scale)
        return torch.cat([general, prompt_rows(task.backbone, [""], policy="eot", scale=task.scale)])
