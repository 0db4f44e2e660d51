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
    """What there is to know about a method before it is run.

    Args:
        paper: Authors (short), title, arXiv id.
        kind: How it works.
        needs: What it needs besides the model: any of "prompts", "anchor", "retain prompts", "images", "judge".
        edits: What it changes.
        status: ``"stable"`` with a parity test and a measured row.
    """

    paper: str
    kind: Literal["fine-tune", "closed form", "runtime"]
    needs: tuple[str, ...]
    edits: str
    status: Literal["stable", "experimental"] = "experimental"


@runtime_checkable
class Method(Protocol):
    """A way to make a model forget; its hyper-parameters are the fields of a frozen pydantic model.

    To add one: write ``methods/<name>.py``, add a line to ``_registry.METHODS``, ship a recipe.
    """

    name: ClassVar[str]

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
