"""Safe Latent Diffusion: steer guidance away from the concept while the picture is drawn."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.hooks.sld import SLDHook
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.methods._runtime import check_concept, hook_edit
from aizheimer.methods.base import UNETS, MethodInfo, joint

PRESETS: dict[str, dict[str, Any]] = {
    "weak": {"warmup": 15, "scale": 200.0, "threshold": 0.0, "momentum_scale": 0.0, "momentum_beta": 0.0},
    "medium": {"warmup": 10, "scale": 1000.0, "threshold": 0.01, "momentum_scale": 0.3, "momentum_beta": 0.4},
    "strong": {"warmup": 7, "scale": 2000.0, "threshold": 0.025, "momentum_scale": 0.5, "momentum_beta": 0.7},
    "max": {"warmup": 0, "scale": 5000.0, "threshold": 1.0, "momentum_scale": 0.5, "momentum_beta": 0.7},
}
"""The four configurations of the paper, "Hyp-Weak" to "Hyp-Max"."""

WEAK_SCALE_OF_DIFFUSERS = 20.0


class SLD(BaseModel):
    r"""Subtract from the guidance what leads to the concept, where the prompt comes near it.

    .. math:: \hat\epsilon = \epsilon_\varnothing + w(\epsilon_p - \epsilon_\varnothing - \gamma), \quad
        \gamma = \mu \odot (\epsilon_S - \epsilon_\varnothing) + s_m\nu

    with the element-wise weight :math:`\mu = \min(1, s_S|\epsilon_p - \epsilon_S|)` where
    :math:`\epsilon_p - \epsilon_S < \lambda`, else 0, and the momentum :math:`\nu`. Three evaluations a step instead
    of two. A number that is given replaces that of the preset.

    Example:
        >>> edit = SLD(preset="strong").unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Schramowski et al., Safe Latent Diffusion, arXiv 2211.05105, equations 3 to 8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "sld"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Schramowski et al., Safe Latent Diffusion, arXiv 2211.05105",
        kind="runtime",
        edits="the guidance, by a third prediction a step",
        status="stable",
        families=UNETS,
        elsewhere=joint("its third prediction is asked of a UNet while that draws"),
    )

    preset: Literal["weak", "medium", "strong", "max"] = Field(
        default="max", description="The paper's Hyp-Weak to Hyp-Max. Ours: max, as one concept must go altogether."
    )
    weak_scale: Literal["paper", "diffusers"] = Field(
        default="paper", description="s_S of the weak preset: the paper's 200, or the 20 of diffusers' pipeline."
    )
    scale: float | None = Field(default=None, ge=0, description="s_S; null is the preset's.")
    threshold: float | None = Field(default=None, description="Lambda; null is the preset's.")
    momentum_scale: float | None = Field(default=None, ge=0, description="s_m; null is the preset's.")
    momentum_beta: float | None = Field(default=None, ge=0, lt=1, description="Beta_m; null is the preset's.")
    warmup: int | None = Field(default=None, ge=0, description="Steps before it acts; null is the preset's.")
    warmup_reference: int = Field(
        default=0,
        ge=0,
        description="Steps that the warm-up is counted for, to scale it to a call with fewer (the paper draws 50); 0, "
        "the paper's, counts steps as they are.",
    )
    repository_warmup: bool = Field(
        default=False,
        description="Compare the warm-up with the timestep (999 to 0), as UnlearnDiffAtk's code does: it is then on "
        "nearly always.",
    )
    also: tuple[str, ...] = Field(default=(), description="Further words of the concept. The paper lists ten.")
    seed: int = Field(default=0, ge=0, description="Unused: nothing is random.")

    def numbers(self) -> dict[str, Any]:
        """Return the five numbers that hold: the preset's, where none is given."""
        preset = dict(PRESETS[self.preset])
        if self.preset == "weak" and self.weak_scale == "diffusers":
            preset["scale"] = WEAK_SCALE_OF_DIFFUSERS
        given = {name: getattr(self, name) for name in preset if getattr(self, name) is not None}
        return preset | given

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the edit; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If the concept is cut off in its own prompts.
        """
        check_concept(backbone, concept)
        hook = SLDHook(
            words=", ".join([concept.target, *self.also]),
            warmup_reference=self.warmup_reference,
            warmup_by_timestep=self.repository_warmup,
            **self.numbers(),
        )
        return hook_edit(self, hook, backbone=backbone, concept=concept, callbacks=callbacks)
