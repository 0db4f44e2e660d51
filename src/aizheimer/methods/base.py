"""What every unlearning method is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """What a user chooses a method by; ``aizheimer ls methods`` prints it.

    Args:
        paper: Authors, title and arXiv id of where it comes from.
        kind: ``"fine-tune"`` trains, ``"closed form"`` solves, ``"runtime"`` acts while pictures are drawn.
        needs: What it must be given, or makes for itself, beside the concept: of ``"anchor"``, ``"retain prompts"``,
            ``"images"``, ``"judge"``.
        edits: What it changes, in words.
        status: ``"stable"`` with a parity test and a measured row in the benchmark, else ``"experimental"``.
    """

    paper: str
    kind: Literal["fine-tune", "closed form", "runtime"]
    needs: tuple[str, ...] = ()
    edits: str
    status: Literal["stable", "experimental"] = "experimental"


@runtime_checkable
class Method(Protocol):
    """A way to make a model forget; its hyper-parameters are the fields of a frozen pydantic model.

    To add one: write ``methods/<name>.py``, add a line to ``_registry.METHODS``, ship a recipe.
    """

    name: ClassVar[str]
    info: ClassVar[MethodInfo]

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Return the method with these hyper-parameters, as pydantic models do."""
        ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """Return the hyper-parameters, as pydantic models do."""
        ...

    def unlearn(
        self, backbone: Backbone, concept: Concept, *, run: RunFolder | None = None, callbacks: Callbacks | None = None
    ) -> Edit:
        """Make the model forget the concept.

        Args:
            backbone: The model. Its weights are bit-identical afterwards; the edit changes them when applied.
            concept: What to forget.
            run: Where checkpoints and history go; None keeps nothing.
            callbacks: Told what happens.

        Returns:
            The change of weights.
        """
        ...
