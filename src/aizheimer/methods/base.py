"""What every unlearning method is."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder


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
