"""MACE: take the concept out of the words around it, then out of its own words, and fuse both in closed form."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor
from aizheimer.data.rows import Prompts, prompt_rows
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.methods._closed_form import (
    KeyOrValue,
    Layers,
    RetainGeneral,
    RetainNeighbours,
    RetainOthers,
    Target,
    Task,
    begin,
    mean_sums,
    outcome,
    prior_sums,
    stacked,
    target_pairs,
)
from aizheimer.methods._several import Also
from aizheimer.methods._suppression import suppress
from aizheimer.methods.base import EVERYWHERE, MethodInfo
from aizheimer.modules.ridge import RidgeSums, solve_ridge, text_map


class MACE(BaseModel):
    r"""Map the words *around* a concept to those around its anchor, train its own words away, and fuse.

    Stage 1, closed-form refinement: in every prompt, all rows but the concept's own answer as their counterparts in the
    anchor's prompt. They have read the concept, and would draw it without its words. Stage 2 (``lora``): rank-1 updates
    :math:`B A` are trained until pixels of the concept do not attend to its words. Stage 3: weights that answer to all
    rows :math:`k` of the prompts as the trained ones, :math:`(W + B A) k`, and to everyday rows as stage 1.

    Both solves are :math:`W' = (N + \lambda W)(G + \lambda I)^{-1}` on mean moments plus a prior of everyday prompts.
    Without stage 2 the concept's own rows are left as they are, and stage 3 changes nothing: no picture is needed, and
    nothing is trained.

    Example:
        >>> edit = MACE().unlearn(backbone, Concept("Santa Claus", anchor="old man"))  # doctest: +SKIP

    References:
        Lu et al., MACE: Mass Concept Erasure in Diffusion Models, arXiv:2403.06135, section 3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "mace"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Lu et al., MACE: Mass Concept Erasure in Diffusion Models, arXiv:2403.06135",
        kind="closed form",
        needs=("images", "retain prompts"),
        edits="cross-attention keys and values",
        status="stable",
        families=EVERYWHERE,
    )

    also: Also = ()
    prompts: Prompts = Field(
        default="templates",
        description="Prompts that the concept is read in; 30 templates in the paper, the world's here.",
    )
    empty_anchor: EmptyAnchor = Field(
        default="template",
        description="The anchor's prompt when it has no words: template is the prompt without the concept's, whose "
        "other words have counterparts; null, the empty prompt, leaves end-of-text and padding as the only ones.",
    )
    ridge: float = Field(
        default=0.01,
        ge=0,
        description="Lambda for mean moments of rows of mean square 1. The paper's 10 to 1000 for objects are for sums "
        "of about 2,200 rows: 0.005 to 0.5 here.",
    )
    prior_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the mean moment of everyday prompts. The paper's 1e-4 of the sum over 600,000 captions "
        "of 77 rows, against 2,200 rows to erase, comes to about 2; for objects it takes 0 and a larger ridge.",
    )
    prior_prompts: int = Field(
        default=256,
        ge=1,
        description="Everyday prompts: the world's vocabulary in its templates, for the paper's captions.",
    )
    retain_weight: float = Field(
        default=1.0, ge=0, description="Weight of the mean moment of the retain prompts (the paper's domain prior)."
    )
    fidelity: Literal["paper", "repository"] = Field(
        default="paper",
        description="repository multiplies the prior by its weight twice in stage 1, as the published code does.",
    )
    lora: bool = Field(
        default=True,
        description="Train stage 2, and fuse: pictures and masks are the model's own, not a segmenter's.",
    )
    lora_steps: int = Field(default=50, ge=1, description="Steps of stage 2; 50 in the paper.")
    lora_lr: float = Field(
        default=1e-5, gt=0, description="Learning rate of stage 2; 1e-5 objects, 1e-4 styles, people."
    )
    lora_pictures: int = Field(default=8, ge=1, description="Pictures that stage 2 draws; 8 in the paper.")
    mask_threshold: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Attention to the concept, stretched to [0, 1], that makes a pixel its own.",
    )
    layers: Layers = "all"
    parts: tuple[KeyOrValue, ...] = Field(
        default=("k", "v"), min_length=1, description="Edited projections; both in the paper."
    )
    retain_neighbours: RetainNeighbours = 10
    retain_others: RetainOthers = 24
    retain_general: RetainGeneral = 8
    seed: int = Field(
        default=0, description="Chooses which other concepts and everyday prompts are read; of stage 2, everything."
    )

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
        pairs = target_pairs(task, policy="others", empty=self.empty_anchor)
        retained = prompt_rows(backbone, ["", *task.retained.prompts], policy="all", scale=task.scale)
        prior, kept = prior_sums(task, prompts=self.prior_prompts), RidgeSums.keep(retained).mean()
        held = kept.times(self.retain_weight)
        first = prior.times(self.prior_weight**2 if self.fidelity == "repository" else self.prior_weight)
        change = text_map(mean_sums(pairs) + first + held, ridge=self.ridge)
        refined = {name: weight + weight @ change for name, weight in task.weights.items()}
        weights = self._fused(task, refined, prior.times(self.prior_weight) + held) if self.lora else refined
        changes = {name: weights[name] - weight for name, weight in task.weights.items()}
        extra: dict[str, Any] = outcome(task.weights, changes, pairs=stacked(pairs), retained=retained)
        return task.edit(self, changes, **extra, stages=[1, 2, 3] if self.lora else [1])

    def _fused(self, task: Task, refined: dict[str, Tensor], held: RidgeSums) -> dict[str, Tensor]:
        """Train stage 2 for every target from stage 1's weights, and return the weights that fuse all of them."""
        answered: dict[str, RidgeSums] = {}
        for done, target in enumerate(task.targets, start=1):
            updates = self._suppressed(task, target, refined)
            rows = prompt_rows(task.backbone, target.prompts, policy="all", scale=task.scale)
            # Added up at once: the updates of a hundred targets would not fit into memory.
            for name, weight in refined.items():
                own = answers(weight, updates[name], rows=rows)
                answered[name] = own if done == 1 else answered[name] + own
            task.callbacks.on_progress("concepts suppressed", done, len(task.targets))
        return {name: fuse(weight, answered[name], held=held, ridge=self.ridge) for name, weight in refined.items()}

    def _suppressed(self, task: Task, target: Target, refined: dict[str, Tensor]) -> dict[str, Tensor]:
        return suppress(
            task.backbone,
            refined,
            layers=task.layers,
            prompts=target.prompts,
            concept=target.concept.target,
            masked=target.concept.kind == "object",
            steps=self.lora_steps,
            lr=self.lora_lr,
            pictures=self.lora_pictures,
            threshold=self.mask_threshold,
            seed=self.seed,
        )


def answers(weight: Tensor, update: Tensor, *, rows: Tensor) -> RidgeSums:
    """Return the mean moments of a concept's rows and what they should be answered: what stage 2 answers to them.

    Args:
        weight: (out, dim) stage 1's weights.
        update: (out, dim) stage 2's for this concept.
        rows: (n, dim) rows of the concept's prompts.
    """
    return RidgeSums.of(rows, rows @ (weight + update).T).mean()


def fuse(weight: Tensor, answered: RidgeSums, *, held: RidgeSums, ridge: float) -> Tensor:
    """Return weights that answer to every concept's rows as its update does, and to held rows as ``weight``.

    Args:
        weight: (out, dim) stage 1's weights.
        answered: The sum of every concept's `answers`.
        held: Mean moments of the text to keep.
        ridge: Lambda.
    """
    return solve_ridge(weight, answered + held.through(weight), ridge=ridge)
