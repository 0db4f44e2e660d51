"""SAFREE: filter the prompt's embedding while the picture is drawn."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.hooks.safree import SAFREEHook
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.methods._runtime import check_concept, hook_edit
from aizheimer.methods.base import UNETS, MethodInfo, joint

SCHEDULE = {"object": (2.5, 5.333), "style": (3.5, 5.5)}
"""Steepness and midpoint of the self-validating filter, by the concept's kind, as in the published code."""


class SAFREE(BaseModel):
    r"""Project the prompt's trigger tokens away from the concept, for as many first steps as the prompt needs.

    A token is a trigger if the prompt without it lies farther from the concept's subspace than without the others:
    :math:`\|(I - P_C)m_i\| \ge (1 + \alpha)\,\mathrm{mean}_{j \ne i}\|(I - P_C)m_j\|`. It becomes
    :math:`e_i' = P_I(I - P_C)e_i`. The self-validating filter keeps this up to step
    :math:`round(10\,\sigma(2k(10\beta - t_0)))`, with the cosine distance :math:`\beta` between prompt and filtered
    prompt. In those steps latent re-attention damps the low frequencies of the UNet's skip features that the filtered
    prompt made louder: :math:`F' = s\,F` where :math:`|F(h(p'))| > |F(h(p))|`.

    On Stable Diffusion XL each of the two encoders is filtered so, in its own part of the rows, and the pooled vector
    with the second; the authors' pipeline there filters the second encoder's rows alone (``fidelity="repository"``), by
    scripts without the self-validating filter and without re-attention.

    Example:
        >>> edit = SAFREE().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Yoon et al., SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image and Video Generation, arXiv
        2410.12761.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "safree"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Yoon et al., SAFREE: Training-Free and Adaptive Guard, arXiv 2410.12761",
        kind="runtime",
        edits="the prompt's embedding and the UNet's skip features, in the first steps",
        status="stable",
        families=UNETS,
        elsewhere=joint(
            "it tells words by what a causal encoder says at the end of the text, which T5 has not, and damps a UNet's "
            "skip connections"
        ),
    )

    also: tuple[str, ...] = Field(
        default=(),
        description="Further phrases that span the concept with its name; the paper has 17 for sexual content and the "
        "name alone for an artist.",
    )
    alpha: float = Field(default=0.01, ge=0, description="Tolerance for trigger tokens; the paper's.")
    fidelity: Literal["paper", "repository"] = Field(
        default="paper",
        description="Order of the projections: P_I(I - P_C) as printed, or the code's (I - P_C)P_I; latent "
        "re-attention: low frequencies are multiplied by s as printed, or s is written in their place as in the code; "
        "and on SDXL both encoders' rows and the pooled vector, or the second encoder's rows alone as in the code.",
    )
    self_validating: bool = Field(default=True, description="Filter the first steps only; the paper's. False: all.")
    filter_steps: int = Field(default=10, ge=0, description="The most steps that are filtered; the paper's, of 50.")
    steps_reference: int = Field(
        default=0,
        ge=0,
        description="Steps of a call that filter_steps is for, to scale it to others; 0 (the paper's) does not.",
    )
    steepness: float | None = Field(
        default=None, gt=0, description="k; null is the published code's: 2.5, and 3.5 for a style."
    )
    midpoint: float | None = Field(
        default=None, description="t_0; null is the published code's: 5.333, and 5.5 for a style."
    )
    re_attention: bool = Field(
        default=True, description="Latent re-attention in the steps that are filtered; the paper's on Stable Diffusion."
    )
    skip_scales: tuple[float, float] = Field(
        default=(0.9, 0.2),
        description="s of latent re-attention, in the two widest stages of the decoder (1280 and 640 channels); the "
        "published code's.",
    )
    backbone_scales: tuple[float, float] = Field(
        default=(1.0, 1.0),
        description="b, for the first half of the decoder's own channels there, as in FreeU; 1 in the published code.",
    )
    seed: int = Field(default=0, ge=0, description="Unused: nothing is random.")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the edit; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If the concept is cut off in its own prompts.
        """
        check_concept(backbone, concept)
        steepness, midpoint = SCHEDULE[concept.kind]
        hook = SAFREEHook(
            phrases=(concept.target, *self.also),
            alpha=self.alpha,
            order=self.fidelity,
            self_validating=self.self_validating,
            steps=self.filter_steps,
            steepness=self.steepness if self.steepness is not None else steepness,
            midpoint=self.midpoint if self.midpoint is not None else midpoint,
            reference=self.steps_reference,
            skip_scales=self.skip_scales if self.re_attention else None,
            backbone_scales=self.backbone_scales if self.re_attention else (1.0, 1.0),
        )
        return hook_edit(self, hook, backbone=backbone, concept=concept, callbacks=callbacks)
