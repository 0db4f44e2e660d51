"""What every unlearning method is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.families import FAMILIES, Family
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """What a user chooses a method by; ``aizheimer ls methods`` prints it.

    Args:
        paper: Authors, title and arXiv id of where it comes from.
        kind: ``"fine-tune"`` trains, ``"closed form"`` solves, ``"runtime"`` acts while pictures are drawn.
        in_words: What people read in its place, where the kind alone is not all of it.
        needs: What it must be given, or makes for itself, beside the concept: of ``"anchor"``, ``"retain prompts"``,
            ``"images"``, ``"judge"``.
        edits: What it changes, in words.
        status: ``"stable"`` with a parity test and a measured row in the benchmark, else ``"experimental"``.
        families: Families of models that it works on, each with the settings it needs there, as overrides
            (``"metric=identity"``). This is what ``aizheimer ls --matrix`` prints and what the tests run over: what is
            listed here is tested here, on every kind of model in the family (`aizheimer.backbones.families.kinds`).
        elsewhere: Why it does not work on others, in the words of `refusal`.
    """

    paper: str
    kind: Literal["fine-tune", "closed form", "runtime"]
    in_words: str = ""
    needs: tuple[str, ...] = ()
    edits: str
    status: Literal["stable", "experimental"] = "experimental"
    families: Mapping[Family, tuple[str, ...]] = field(default_factory=lambda: {"sd": ()})
    elsewhere: Mapping[Family, str] = field(default_factory=dict)

    @property
    def kind_in_words(self) -> str:
        """The kind as people read it."""
        return self.in_words or self.kind

    def refusal(self, family: Family) -> str:
        """Return why the method does not work on a family, or nothing if it does."""
        if family in self.families:
            return ""
        return self.elsewhere.get(family, "nobody has tested it there")


EVERYWHERE: Mapping[Family, tuple[str, ...]] = {"sd": (), "sdxl": (), "sd3": (), "flux": ()}
"""Every family, without further settings."""

UNETS: Mapping[Family, tuple[str, ...]] = {"sd": (), "sdxl": ()}
"""The families whose denoiser is a UNet with cross-attention."""


def joint(reason: str) -> dict[Family, str]:
    """Return the same reason for every family of joint attention."""
    return {"sd3": reason, "flux": reason}


class Named(Protocol):
    """What `check_family` reads of a method."""

    name: ClassVar[str]
    info: ClassVar[MethodInfo]


def check_family(method: Named, backbone: Backbone) -> None:
    """Refuse a model of a family that a method is not defined for.

    Raises:
        ModelError: It is of such a family; the message says why.
    """
    reason = method.info.refusal(backbone.family)
    if reason:
        wanted = " or ".join(FAMILIES[family].title for family in method.info.families)
        raise ModelError(
            f"{method.name} does not work on {FAMILIES[backbone.family].title}: {reason}; wanted {wanted}. "
            "`aizheimer ls --matrix` lists what works where."
        )


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
