"""RECE: find, in closed form, the text that still brings the concept back, and erase that as well, a few times."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor
from aizheimer.data.rows import Prompts, RowPolicy, prompt_rows
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
    through_all,
)
from aizheimer.methods._revival import revived, undoing
from aizheimer.methods._several import Also
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.ridge import RidgeSums, text_map


class RECE(BaseModel):
    r"""Erase as UCE does; then, some times, solve for the rows that undo it and erase these.

    The rows that make edited projections :math:`W_l` answer as the original :math:`W^0_l` answer to :math:`c` are

    .. math:: c' = \Big(\mu I + \sum_l W_l^\top W_l\Big)^{-1} \Big(\sum_l W_l^\top W_l^0\Big) c,

    and the next solve sends :math:`c'` to the anchor, starting from the current weights.

    Example:
        >>> edit = RECE().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Gong et al., Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models, arXiv:2407.12383.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "rece"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Gong et al., Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models, arXiv:2407.12383",
        kind="closed form",
        needs=("retain prompts",),
        edits="cross-attention keys and values",
        status="stable",
        families=EVERYWHERE,
    )

    also: Also = ()
    epochs: int = Field(
        default=3, ge=0, description="Rounds of search and erasure; 1 to 3 in the paper by concept. 0 is UCE alone."
    )
    damping: float = Field(
        default=0.01,
        gt=0,
        description="Mu, which keeps found rows short, as a share of the mean eigenvalue of sum W'W. Ours: the paper's "
        "0.1 and 0.001 are absolute and depend on the size of a model's weights.",
    )
    resolve: Literal["current", "original"] = Field(
        default="current",
        description="current: each solve starts from the weights of the last (the paper). original: from the original "
        "weights, with all rows found so far, so that damage does not add up (ours).",
    )
    first_rows: RowPolicy = Field(
        default="last..end", description="Rows of the first solve; from the last sub-token on, as UCE's paper does."
    )
    attack_rows: RowPolicy = Field(
        default="all", description="Rows that are searched for and erased in the rounds; all in the paper."
    )
    prompts: Prompts = Field(default="bare", description="Prompts that the concept is read in; bare in the paper.")
    empty_anchor: EmptyAnchor = Field(
        default="null",
        description="What stands for an anchor without words: null is the empty prompt (the paper), template the "
        "prompt without the concept's words.",
    )
    erase_scale: float = Field(default=1.0, ge=0, description="Alpha, the weight of a target row; 1 in the paper.")
    preserve_scale: float = Field(
        default=0.1,
        ge=0,
        description="Beta, the weight of a row of the empty prompt (the paper) and of retain prompts (ours); 0.1.",
    )
    ridge: float = Field(
        default=0.1, ge=0, description="Lambda of the rounds' solves, rows having a mean square of 1; 0.1 in the paper."
    )
    first_ridge: float = Field(default=0.5, ge=0, description="Lambda of the first solve; 0.5, as UCE's.")
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
            ConceptError: If concept or anchor are cut off, or there is nothing to retain.
            SelectorError: If layers or parts select nothing.
            RecipeError: If a ridge is 0 and the rows leave directions free.
        """
        task = begin(backbone, concept, method=self, prompts=self.prompts, callbacks=callbacks)
        first, attacked = (
            stacked(target_pairs(task, policy=rows, empty=self.empty_anchor))
            for rows in (self.first_rows, self.attack_rows)
        )
        retained = prompt_rows(backbone, ["", *task.retained.prompts], policy="all", scale=task.scale)
        kept = RidgeSums.keep(retained, weight=self.preserve_scale)
        erased = RidgeSums.of(first.keys, first.sources, weight=self.erase_scale) + kept
        weights = self._solve(task.weights, erased, ridge=self.first_ridge)
        attacks = []
        for _ in range(self.epochs):
            found = attacked.keys @ undoing(weights, task.weights, damping=self.damping).T
            attacks.append(revived(weights, task.weights, found=found, pairs=attacked))
            sums = RidgeSums.of(found, attacked.sources, weight=self.erase_scale)
            if self.resolve == "current":
                weights = self._solve(weights, sums + kept, ridge=self.ridge)
            else:
                erased += sums
                weights = self._solve(task.weights, erased, ridge=self.ridge)
        changes = {name: weights[name] - weight for name, weight in task.weights.items()}
        extra = outcome(task.weights, changes, pairs=first, retained=retained)
        return task.edit(self, changes, **extra, revived=attacks)

    @staticmethod
    def _solve(weights: dict[str, Tensor], sums: RidgeSums, *, ridge: float) -> dict[str, Tensor]:
        changes = through_all(weights, text_map(sums, ridge=ridge))
        return {name: weight + changes[name] for name, weight in weights.items()}
