"""OCE: turn the values so that the concept's direction is left, by an orthogonal matrix."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor
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
    begin,
    outcome,
    prior_sums,
)
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.subspace import Determinant, orthonormal_basis, procrustes


class OCE(BaseModel):
    r"""Multiply the values by the orthogonal matrix that leaves the concept's subspace and keeps everyday values.

    With :math:`G` and :math:`G^*` the projectors onto the values of target and anchor rows, retained rows :math:`r` and
    the moment :math:`C_g` of everyday prompts,

    .. math:: M = -s_e\, G (I - G^*) + s_p \sum_r (W r)(W r)^\top + s_g\, W C_g W^\top + \lambda W W^\top
        = U \Sigma V^\top, \qquad W' = U V^\top W .

    With the paper's scales the concept's values are *reflected*; below a threshold of :math:`s_e` nothing happens. The
    last three terms are divided by :math:`\lVert W \rVert_F^2 / \text{out}` and rows by the encoder's root mean square,
    so that the scales mean the same in every layer and model.

    Example:
        >>> edit = OCE().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Orthogonal concept erasure (OCE), ICML 2026; equations as in its published code.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "oce"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Orthogonal concept erasure (OCE), ICML 2026; no arXiv id known to us",
        kind="closed form",
        needs=("retain prompts",),
        edits="cross-attention values",
        status="stable",
        families=EVERYWHERE,
    )

    rows: RowPolicy = Field(default="last", description="Rows of target, anchor and retained texts; last in the paper.")
    prompts: Prompts = Field(
        default="bare", description="Prompts that the concept is read in: bare words (the paper), templates, or both."
    )
    empty_anchor: EmptyAnchor = Field(
        default="null",
        description="What stands for an anchor without words: null is the first end-of-text row of the empty prompt, "
        "template that of the prompt without the concept's words.",
    )
    erase_scale: float = Field(default=2000.0, ge=0, description="s_e; 2000 for objects, 500 for styles in the paper.")
    preserve_scale: float = Field(
        default=1.0,
        ge=0,
        description="s_p, the weight of each retained row; 0 for objects, 1 for styles, 2 for 100 people in the paper. "
        "Ours is 1, so that what is named to be kept counts.",
    )
    general_scale: float = Field(default=10.0, ge=0, description="s_g, weight of everyday prompts; 10 in the paper.")
    ridge: float = Field(default=10.0, ge=0, description="Lambda; 10 in the paper.")
    prior_prompts: int = Field(
        default=256,
        ge=1,
        description="Everyday prompts: the world's vocabulary in its templates, for the paper's 30,000 captions.",
    )
    determinant: Determinant = Field(
        default="smallest",
        description="When the matrix is a reflection: smallest turns it along its smallest singular vector (ours), "
        "free leaves it, column negates its last column (the published code: it inverts one arbitrary output unit).",
    )
    layers: Layers = "all"
    parts: tuple[KeyOrValue, ...] = Field(
        default=("v",), min_length=1, description="Edited projections; v in the paper."
    )
    retain_neighbours: RetainNeighbours = 10
    retain_others: RetainOthers = 24
    retain_general: RetainGeneral = 8
    seed: int = Field(
        default=0, description="Chooses which other concepts and everyday prompts are read; nothing else is random."
    )

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If concept or anchor are cut off, or there is nothing to retain.
            SelectorError: If layers or parts select nothing.
        """
        task = begin(backbone, concept, method=self, prompts=self.prompts, callbacks=callbacks)
        pairs = anchor_pairs(
            backbone, task.prompts, concept=concept, policy=self.rows, empty=self.empty_anchor, scale=task.scale
        )
        retained = prompt_rows(backbone, task.retain_texts, policy=self.rows, scale=task.scale)
        prior = prior_sums(task, prompts=self.prior_prompts, padding=False).gram
        changes, cosines = {}, []
        for name, weight in task.weights.items():
            objective = self.objective(weight, pairs, retained=retained, prior=prior)
            changes[name] = procrustes(objective, determinant=self.determinant) @ weight - weight
            old, new = pairs.keys @ weight.T, pairs.keys @ (weight + changes[name]).T
            cosines.append(float(torch.cosine_similarity(old, new, dim=1).mean()))
        extra = outcome(task.weights, changes, pairs=pairs, retained=retained)
        return task.edit(self, changes, **extra, target_cosine=sum(cosines) / len(cosines))

    def objective(self, weight: Tensor, pairs: RowPairs, *, retained: Tensor, prior: Tensor) -> Tensor:
        """Return M of one layer, whose nearest orthogonal matrix is the edit.

        Args:
            weight: (out, dim).
            pairs: Rows of target and anchor.
            retained: (n, dim).
            prior: (dim, dim) mean outer product of everyday rows.
        """
        target = orthonormal_basis(pairs.keys @ weight.T)
        anchor = orthonormal_basis(pairs.sources @ weight.T)
        erase = target @ target.T
        erase = erase - (erase @ anchor) @ anchor.T
        kept = self.preserve_scale * retained.T @ retained + self.general_scale * prior
        kept = kept + self.ridge * torch.eye(len(prior), dtype=prior.dtype)
        unit = weight.square().sum() / len(weight)
        return weight @ kept @ weight.T / unit - self.erase_scale * erase
