"""What runtime methods do alike: check the concept, tell what is touched, and wrap a hook into an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.hook import Hook
from aizheimer.edits.provenance import ConceptRecord, Provenance, base_name, text_fingerprints
from aizheimer.engine.callbacks import Callbacks
from aizheimer.methods.base import MethodInfo, check_family


class RuntimeMethod(Protocol):
    """What `hook_edit` reads of a method."""

    name: ClassVar[str]
    info: ClassVar[MethodInfo]

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """Return the hyper-parameters."""
        ...


def check_concept(backbone: Backbone, concept: Concept) -> None:
    """Refuse a concept that its own prompts do not carry whole.

    Raises:
        ConceptError: It has no tokens, or is cut off.
    """
    backbone.token_columns(backbone.world.prompts(concept), concept.target, policy="concept")


def hook_edit(
    method: RuntimeMethod,
    hook: Hook,
    *,
    backbone: Backbone,
    concept: Concept,
    callbacks: Callbacks | None,
    layers: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> Edit:
    """Return the edit of a runtime method, and tell the callbacks what it touches: no parameters.

    Args:
        method: The method; its fields are the recipe.
        hook: Its behaviour.
        backbone: What the edit is for.
        concept: What it forgets.
        callbacks: Told once, if there are any.
        layers: Attention modules that the hook acts in.
        extra: Anything else for the provenance.
    """
    check_family(method, backbone)
    prompts = backbone.world.prompts(concept)
    data = {"forget_prompts": prompts, "retain_prompts": [], "layers": list(layers), "parameters": []}
    (callbacks or Callbacks()).on_data(data)
    recipe = method.model_dump(mode="json")
    provenance = Provenance(
        method=method.name,
        concept=ConceptRecord.of(concept),
        base_fingerprint=backbone.fingerprint(),
        **(text_fingerprints(backbone.networks) if hook.tensors else {}),
        base_name=base_name(backbone.pipe.name_or_path),
        recipe=recipe,
        seed=recipe.get("seed", 0),
        extra=dict(extra or {}),
    )
    return Edit({}, provenance, hook)
