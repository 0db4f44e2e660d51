"""Negative prompt: guide every picture away from the concept's name."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.methods._runtime import check_concept, hook_edit
from aizheimer.methods.base import UNETS, MethodInfo, check_family


class NegativePrompt(BaseModel):
    r"""Put the concept's name where guidance has the empty prompt.

    .. math:: \hat\epsilon = \epsilon(c) + w\,(\epsilon(p) - \epsilon(c))

    with the prompt p, the concept c and the guidance scale w. It needs no training, costs nothing while drawing, and
    has no effect at all without guidance (w of 1 or less), where the edit warns.

    Example:
        >>> edit = NegativePrompt().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP

    References:
        Ho and Salimans, Classifier-Free Diffusion Guidance, arXiv 2207.12598, equation 6, with c for the null token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "negative-prompt"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Ho and Salimans, Classifier-Free Diffusion Guidance, arXiv 2207.12598 (the negative prompt is folklore)",
        kind="runtime",
        edits="the unconditional embedding of guidance",
        status="stable",
        families={**UNETS, "sd3": ()},
        elsewhere={"flux": "guidance is distilled into the model, which draws without an unconditional prediction"},
    )

    also: tuple[str, ...] = Field(default=(), description="Further words to guide away from, such as synonyms. Ours.")
    seed: int = Field(default=0, ge=0, description="Unused: nothing is random.")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the edit; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If the concept is cut off in its own prompts.
        """
        check_family(self, backbone)
        check_concept(backbone, concept)
        hook = NegativePromptHook(words=", ".join([concept.target, *self.also]))
        return hook_edit(self, hook, backbone=backbone, concept=concept, callbacks=callbacks)
