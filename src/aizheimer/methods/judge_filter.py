"""Judge filter: draw as always, and hand out a grey picture wherever a judge sees the concept."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import read_json
from aizheimer.edits.edit import Edit
from aizheimer.edits.hooks.judge_filter import JudgeFilterHook, judge_folder, judge_sha256, open_judge, own_class
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import ModelError
from aizheimer.methods._runtime import check_concept, hook_edit
from aizheimer.methods.base import EVERYWHERE, MethodInfo

WANTED = "an image classifier or a CLIP, as transformers folders"


class JudgeFilter(BaseModel):
    """Filter pictures after they are drawn: grey where a judge sees the concept.

    The baseline that every other method must be compared with: the model has unlearned nothing, and the filter is gone
    with one line of code. What it costs is benign pictures blocked, so look at ``edit.hook.count`` after drawing
    prompts that do not ask for the concept.

    Example:
        >>> edit = JudgeFilter().unlearn(backbone, Concept("Santa Claus"))  # doctest: +SKIP
        >>> with edit.applied(pipe):  # doctest: +SKIP
        ...     pipe("a cat"), edit.hook.count.rate

    References:
        Rando et al., Red-Teaming the Stable Diffusion Safety Filter, arXiv 2210.04610, section 2 (the filter that
        ships with Stable Diffusion, which has the same place and result).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "judge-filter"
    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Rando et al., Red-Teaming the Stable Diffusion Safety Filter, arXiv 2210.04610 (as a baseline)",
        kind="runtime",
        needs=("judge",),
        edits="the finished pictures",
        status="stable",
        families=EVERYWHERE,
    )

    judge: str | None = Field(
        default=None,
        description="Folder of an image classifier or CLIP to judge with; null is the world's judge of the concept's "
        "kind, else its CLIP.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Block from this probability of the concept on; null blocks what the judge names. Ours.",
    )
    seed: int = Field(default=0, ge=0, description="Unused: nothing is random.")

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the edit; see `aizheimer.methods.base.Method.unlearn`.

        Raises:
            ConceptError: If the concept is cut off in its own prompts.
            ModelError: If there is no judge, or it cannot see the concept.
        """
        check_concept(backbone, concept)
        given = Path(self.judge).expanduser().resolve() if self.judge is not None else None
        folder = given or judge_folder(backbone.world, concept.kind)
        if folder is None:
            raise ModelError(
                f"judge: the world {backbone.world.name!r} brings none; give the folder of {WANTED} as judge=<folder>"
            )
        clip = read_json(folder / "config.json", wanted=WANTED).get("model_type") == "clip"
        classes = _choices(backbone, concept) if clip else ()
        judge = open_judge(folder, kind=concept.kind, classes=classes)
        hook = JudgeFilterHook(
            target=own_class(judge, concept.target),
            kind=concept.kind,
            sha256=judge_sha256(folder),
            folder=str(given) if given is not None else "",
            classes=classes,
            threshold=self.threshold,
        )
        extra = {"judge": judge.name}
        return hook_edit(self, hook, backbone=backbone, concept=concept, callbacks=callbacks, extra=extra)


def _choices(backbone: Backbone, concept: Concept) -> tuple[str, ...]:
    """Return what a CLIP chooses among: the world's words of the concept's kind, and the concept."""
    world = backbone.world
    words = world.styles if concept.kind == "style" else [item.label for item in world.vocabulary]
    known = {word.casefold() for word in words}
    return (*dict.fromkeys(words), *(() if concept.target.casefold() in known else (concept.target,)))
