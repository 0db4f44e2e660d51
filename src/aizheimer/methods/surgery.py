"""Surgery: cut a concept out with what is entangled with it, and teach the neighbours again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from aizheimer._processes import is_main
from aizheimer._registry import METHODS
from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import LatentBank, RolloutPlan
from aizheimer.data.retain import retain_set
from aizheimer.data.sources import BankSource, Draw
from aizheimer.edits.compose import stack, targets_of
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.engine.anchor import BankAnchor, anchor_predictions
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.noise_problem import NoiseProblem, TargetTerm
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import EditError, RecipeError
from aizheimer.methods._material import Material, RetainPlan
from aizheimer.methods._several import takes_several, with_also
from aizheimer.methods._trained import NOTHING, Task, check_trainable, learn, no_attention_stop
from aizheimer.methods.base import UNETS, MethodInfo, check_family
from aizheimer.modules.parameters import ParameterSelection, swapped
from aizheimer.recipes.load import SHIPPED, Recipe, load_recipe

CUT = "cut"
"""Folder in a run that keeps the first stage, which a resumed run does not repeat."""


class Surgery(BaseModel):
    r"""Forget the concept and its nearest neighbours by another method, then teach the neighbours again.

    From :math:`\theta_c`, the weights after the cut, the same weights are trained on, with the frozen model as teacher:

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, r), \epsilon_0(x_t, r)\big)
              + \lambda \operatorname{MSE}\big(\epsilon_\theta(x_t, c), \epsilon_{\theta_c}(x_t, c)\big)

    for retain prompts :math:`r`, those of what was cut beside the concept among them, and prompts :math:`c` of the
    concept, whose forgetting is held where the cut has left it; on the frozen model's rollouts of either.

    Example:
        >>> edit = Surgery(base="uce", cut=2).unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Proposed in the AIzheimer paper, section VI ("Surgery Operation"); the two losses are ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "surgery"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Birben, Dervişoğlu, Külçe: AIzheimer: How was I Drawing?, section VI",
        kind="fine-tune",
        needs=("prompts", "retain prompts"),
        edits="the weights that its base edits",
        families={**UNETS, "sd3": ("settings=[metric=identity]",), "flux": ("settings=[metric=identity]",)},
    )

    base: str = Field(
        default="closed-distraction",
        description="What cuts: the name of a method or a shipped recipe that changes the denoiser's weights.",
    )
    settings: tuple[str, ...] = Field(
        default=(), description="Its own parameters, each as key=value, such as residual=0.1."
    )
    cut: int = Field(
        default=4,
        ge=1,
        description="Nearest concepts by text embedding that are forgotten as well, each by an edit of its own; never "
        "the anchor or what the user keeps.",
    )
    hold_weight: float = Field(
        default=1.0, gt=0, description="Lambda, the weight of holding the concept's forgetting while others are taught."
    )
    retain: RetainPlan = Field(default=RetainPlan(), description="What is taught; its neighbours are what is cut from.")
    rollouts: RolloutPlan = Field(default=RolloutPlan(), description="The frozen model's rollouts.")
    training: TrainSettings = Field(
        default=TrainSettings(steps=200, lr=1e-3, schedule="cosine", warmup=5, clip=1.0, drift_limit=None),
        description="Of the second stage. The drift is largest at its start, so that a limit of it is not for here.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Surgery:
        no_attention_stop(self.training)
        if self.training.drift_limit is not None:
            raise ValueError("training.drift_limit would stop at the cut, where the drift is largest; set it to null")
        if self.retain.neighbours < self.cut:
            raise ValueError(f"cut={self.cut} of retain.neighbours={self.retain.neighbours}; raise retain.neighbours")
        try:
            base = self._recipe()
        except RecipeError as error:
            raise ValueError(f"base: {error}") from error
        if base.method_name == self.name or base.method.info.kind == "runtime":
            raise ValueError(f"base: {self.base} changes no weights that could be taught again; name one that does")
        return self

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept; see `aizheimer.methods.base.Method.unlearn` and `_trained.learn`.

        Raises:
            EditError: If the base made an edit of something else than the denoiser's weights.
            InputError: Whatever the base refuses.
        """
        check_family(self, backbone)
        backbone.token_columns(backbone.world.prompts(concept), concept.target, policy="concept")
        check_trainable(backbone, NOTHING)
        cut = self._kept_cut(backbone, concept, run=run, callbacks=callbacks or Callbacks())
        begin = {name.removeprefix("unet."): change for name, change in cut.deltas.items()}
        return learn(
            self,
            backbone,
            concept,
            selection=ParameterSelection(tuple(begin)),
            task=lambda material: self._task(material, begin, cut=cut),
            run=run,
            callbacks=callbacks,
        )

    def _recipe(self, *, seed: int | None = None) -> Recipe:
        if self.base not in METHODS and not (SHIPPED / f"{self.base}.yaml").is_file():
            raise RecipeError(f"'{self.base}' is no method and no shipped recipe; `aizheimer ls` lists them")
        return load_recipe(self.base, self.settings, seed=seed)

    def _kept_cut(self, backbone: Backbone, concept: Concept, *, run: RunFolder | None, callbacks: Callbacks) -> Edit:
        """Return the first stage's edit: the run's own if it is resumed and has it."""
        if run is None:
            return self._cut(backbone, concept, callbacks)
        if not run.resuming and is_main():
            shutil.rmtree(run.file(CUT), ignore_errors=True)
        if run.resuming and (run.file(CUT) / "edit.json").is_file():
            return load_edit(run.file(CUT))
        cut = self._cut(backbone, concept, callbacks)
        if is_main():
            cut.save(run.file(CUT))
        return cut

    def _cut(self, backbone: Backbone, concept: Concept, callbacks: Callbacks) -> Edit:
        """Forget the concept and its neighbours: in one run if the base can, else each alone, and add the edits."""
        base: Any = self._recipe(seed=self.training.seed).method
        quiet = Callbacks(on_progress=callbacks.on_progress, should_stop=callbacks.should_stop)
        entangled = self._entangled(backbone, concept)
        if takes_several(base) and entangled and not concept.anchor:  # in one run, an anchor is the first one's alone
            cut = with_also(base, [one.target for one in entangled], label=self.base)
            return self._weights(cut.unlearn(backbone, concept, callbacks=quiet), backbone)
        return stack(
            *(self._weights(base.unlearn(backbone, one, callbacks=quiet), backbone) for one in [concept, *entangled])
        )

    def _weights(self, edit: Edit, backbone: Backbone) -> Edit:
        """Return an edit as changes of the denoiser's weights.

        Raises:
            EditError: If it changes something else.
        """
        edit = edit.as_weights(backbone.pipe)
        if other := [name for name in edit.deltas if not name.startswith("unet.")]:
            raise EditError(f"base: {self.base} edits {other[0]}; name a method that edits the denoiser's weights")
        return edit

    def _entangled(self, backbone: Backbone, concept: Concept) -> list[Concept]:
        """Return what is cut beside the concept, nearest first."""
        near = retain_set(
            backbone,
            concept,
            neighbours=self.retain.neighbours,
            others=0,
            general=1,
            generator=generator_for(self.training.seed, "retain"),
        ).neighbours
        labels = [label for label, _ in near if label.casefold() != concept.anchor.casefold()][: self.cut]
        return [Concept(label, anchor=concept.anchor, keep=concept.keep, kind=concept.kind) for label in labels]

    def _task(self, material: Material, begin: Mapping[str, Tensor], *, cut: Edit) -> Task:
        backbone, words = material.backbone, material.data.forget_embeddings
        weights = {name: value + begin[name].to(value) for name, value in material.originals.items()}
        with swapped(backbone.denoiser, weights):
            held, watched = (_as_it_draws(material, bank) for bank in material.forget_banks())
        hold = TargetTerm(
            backbone=backbone,
            source=held,
            embeddings=words,
            target=BankAnchor(),
            batch_size=self.training.batch_size,
            weight=self.hold_weight,
        )
        problem = NoiseProblem(
            parameters=material.parameters,
            terms=[*material.teacher_term(1.0), hold],
            held_out=material.monitor(material.held_out(watched), words),
        )
        extra = {"cut": list(targets_of(cut)[1:]), "cut_by": self._recipe().resolved()}
        return Task(problem=problem, begin=begin, data={CUT: cut.digest}, extra=extra)


def _as_it_draws(material: Material, bank: LatentBank) -> BankSource:
    """Return a bank of forget rollouts with what the network predicts there now."""
    backbone = material.backbone
    draw = Draw(x_t=bank.x_t, t=bank.t, prompt_index=bank.prompt_index)
    targets = anchor_predictions(backbone, draw, embeddings=material.data.forget_embeddings)
    return BankSource.of(bank, target=targets, device=backbone.device, dtype=backbone.dtype)
