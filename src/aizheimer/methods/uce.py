"""UCE: answer the concept's words as an anchor's, in one ridge solve per projection."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor
from aizheimer.data.rows import Prompts, RowPairs, RowPolicy, prompt_rows
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
    stacked,
    target_pairs,
    through_all,
)
from aizheimer.methods._several import Also
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.ridge import RidgeSums, text_map


class UCE(BaseModel):
    r"""Make keys and values answer the concept's rows as they answer an anchor's, and retained rows as before.

    With target rows :math:`e_i`, anchor rows :math:`e_i^*` and retained rows :math:`p_j`, every projection becomes

    .. math:: W = \Big(\sum_i \alpha W_0 e_i^* e_i^\top + \sum_j \beta W_0 p_j p_j^\top + \lambda W_0\Big)
        \Big(\sum_i \alpha e_i e_i^\top + \sum_j \beta p_j p_j^\top + \lambda I\Big)^{-1}.

    Rows are divided by the encoder's root mean square, near 1 after a layer norm, so that lambda means the same.

    Example:
        >>> edit = UCE().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Gandikota et al., Unified Concept Editing in Diffusion Models, arXiv:2308.14761, equation 7.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "uce"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Gandikota et al., Unified Concept Editing in Diffusion Models, arXiv:2308.14761",
        kind="closed form",
        needs=("retain prompts",),
        edits="cross-attention keys and values",
        status="stable",
        families=EVERYWHERE,
    )

    rows: Literal["2023", "2025"] = Field(
        default="2023",
        description="2023 (the paper's code): from the concept's last sub-token to the end of the window, and all rows "
        "of retain prompts and of the empty prompt. 2025 (the code since): the last sub-token only, of both.",
    )
    prompts: Prompts = Field(
        default="bare", description="Prompts that the concept is read in: bare words (the paper), templates, or both."
    )
    also: Also = ()
    anchors: tuple[str, ...] = Field(
        default=(), description="More anchors beside the concept's own; the concept answers as their average."
    )
    empty_anchor: EmptyAnchor = Field(
        default="null",
        description="What stands for an anchor without words: null is the empty prompt (the paper), template the "
        "prompt without the concept's words. Its first end-of-text row answers, never begin-of-text.",
    )
    erase_scale: float = Field(default=1.0, ge=0, description="Alpha, the weight of a target row; 1 in the paper.")
    preserve_scale: float | None = Field(
        default=None,
        ge=0,
        description="Beta, the weight of a retained row; by default max(0.1, 1 / retained texts) for rows of 2023 and "
        "1 for rows of 2025, as the code of either year.",
    )
    ridge: float = Field(default=0.5, ge=0, description="Lambda; 0.5 in both codes.")
    layers: Layers = "all"
    parts: tuple[KeyOrValue, ...] = Field(default=("k", "v"), min_length=1, description="Edited projections.")
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
            RecipeError: If the ridge is 0 and the rows leave directions free.
        """
        task = begin(backbone, concept, method=self, prompts=self.prompts, callbacks=callbacks)
        (own, others), retained = self._targets(task), self._retained(task)
        default = 1.0 if self.rows == "2025" else max(0.1, 1 / (1 + len(task.retained.prompts)))
        sums = RidgeSums.keep(retained, weight=default if self.preserve_scale is None else self.preserve_scale)
        for pairs in own:
            sums += RidgeSums.of(pairs.keys, pairs.sources, weight=self.erase_scale / len(own))
        for pairs in others:
            sums += RidgeSums.of(pairs.keys, pairs.sources, weight=self.erase_scale)
        changes = through_all(task.weights, text_map(sums, ridge=self.ridge))
        pairs = stacked([own[0], *others])
        return task.edit(self, changes, **outcome(task.weights, changes, pairs=pairs, retained=retained))

    def _targets(self, task: Task) -> tuple[list[RowPairs], list[RowPairs]]:
        """Return the concept's rows with those of every anchor of its, and the rows of those of ``also``."""
        first, *others = task.targets
        concept = first.concept
        policy: RowPolicy = "last" if self.rows == "2025" else "last..end"
        anchors = dict.fromkeys([concept.anchor, *self.anchors] if concept.anchor else self.anchors or [""])
        answered = [replace(first, concept=replace(concept, anchor=anchor)) for anchor in anchors]
        own, rest = (
            target_pairs(task, policy=policy, empty=self.empty_anchor, targets=targets)
            for targets in (answered, others)
        )
        return own, rest

    def _retained(self, task: Task) -> torch.Tensor:
        """Return the rows that must answer as before; those of 2023 always include the empty prompt's."""
        if self.rows == "2025":
            return prompt_rows(task.backbone, task.retain_texts, policy="last", scale=task.scale)
        texts = ["", *task.retained.prompts]
        return prompt_rows(task.backbone, texts, policy="all", scale=task.scale)
