"""Concepts that are forgotten beside the first, in one run of a method: the field ``also``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from aizheimer._names import folded
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.errors import ConceptError, RecipeError
from aizheimer.recipes.files import checked


def once_each(named: Sequence[str], *, field: str) -> None:
    """Refuse a name that is empty or there twice.

    Raises:
        ValueError: If one is.
    """
    words = [folded(word) for word in named]
    if "" in words:
        raise ValueError(f"{field} has an empty entry, which no prompt is about; leave it out")
    if twice := next((word for word in words if words.count(word) > 1), None):
        raise ValueError(f"'{twice}' is named twice in {field}; name each concept once")


def _checked(also: tuple[str, ...]) -> tuple[str, ...]:
    once_each(also, field="also")
    return also


Also = Annotated[
    tuple[str, ...],
    AfterValidator(_checked),
    Field(
        description="Further concepts, erased together with the concept in the same solve, each in prompts of its own; "
        "an anchor is the first concept's alone."
    ),
]


def takes_several(method: object) -> bool:
    """Whether a method forgets several concepts in one run: it has a field ``also``, and does not say otherwise."""
    has_field = isinstance(method, BaseModel) and "also" in type(method).model_fields
    return has_field and getattr(method, "takes_several", True)


def with_also(method: Any, words: Sequence[str], *, label: str) -> Any:
    """Return a method that `takes_several` with further concepts in its ``also``, checked anew.

    Args:
        method: The method; what it names already stays.
        words: The further concepts.
        label: What a message calls the method.

    Raises:
        RecipeError: If the method's other parameters do not go with them.
    """
    also = tuple(dict.fromkeys([*method.also, *words]))
    content = {**method.model_dump(), "also": also}
    return checked(type(method), content, label=f"{label} with {', '.join(also)} as also", error=RecipeError)


def named_beside(world: World, words: str, concept: Concept, *, field: str) -> Concept:
    """Return a concept that a field names in words, to be forgotten beside another; see `World.beside`.

    Raises:
        ConceptError: If it is that other concept, or is also kept.
    """
    beside = world.beside(words, concept)
    if folded(beside.target) == folded(concept.target):
        raise ConceptError(f"{field}: '{beside.target}' is the concept to forget itself; leave it out")
    if folded(beside.target) in {folded(word) for word in concept.keep}:
        raise ConceptError(
            f"keep: '{beside.target}' cannot be kept and forgotten at once; take it out of keep or of {field}"
        )
    return beside
