"""What an edit is recorded to be made of: the edits that were added up, each with its strength."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from aizheimer.edits.provenance import Provenance
from aizheimer.errors import EditError

STACK, MERGE = "stack", "merge"
"""Methods of what is made of other edits."""
LISTED = "stack"
"""Where a provenance lists what an edit was made of."""
_SAME_STRENGTH = 1e-9


class _Part(BaseModel):
    """One entry of the list, as a file may hold it that somebody else wrote."""

    model_config = ConfigDict(extra="allow", strict=True)

    concept: str
    kind: Literal["object", "style"] = "object"
    anchor: str = ""
    also: list[str] = Field(default_factory=list)
    method: str
    strength: float = Field(allow_inf_nan=False)
    digest: str


_LIST = TypeAdapter(list[_Part])


def recorded_parts(origin: Provenance, *, digest: str = "") -> list[dict[str, Any]]:
    """Return what an edit is made of, by its record: itself, if it is no sum.

    Args:
        origin: The edit's record.
        digest: Names the edit at strength 1; a sum lists those of its parts.

    Returns:
        Concept, kind, anchor, method, strength and digest of each part; ``also`` of one that forgot several concepts.

    Raises:
        EditError: If the list is damaged.
    """
    if origin.method in {STACK, MERGE}:
        try:
            listed = _LIST.validate_python(origin.extra.get(LISTED, []))
        except ValidationError as error:
            fields = ", ".join(dict.fromkeys(".".join(map(str, problem["loc"])) for problem in error.errors()))
            raise EditError(
                f"the list of what this edit is made of is damaged (wrong or missing: {fields or LISTED}); add the "
                "edits up again"
            ) from error
        parts = [part.model_dump(exclude_unset=True) for part in listed]
        return [{**part, "strength": part["strength"] * origin.strength} for part in parts]
    concept = origin.concept
    own: dict[str, Any] = {"concept": concept.target, "kind": concept.kind, "anchor": concept.anchor}
    if also := origin.recipe.get("also"):
        own["also"] = list(also)
    return [{**own, "method": origin.method, "strength": origin.strength, "digest": digest}]


def words_of(part: Mapping[str, Any]) -> list[str]:
    """Return the concepts that a part is about: one, and those that were forgotten in the same run."""
    return [str(words) for words in (part["concept"], *part.get("also", ()))]


def forgotten(parts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the concepts that parts forget; the strengths of one edit that is listed twice are added first.

    Example:
        >>> forgotten([{"concept": "cat", "method": "uce", "strength": 1.0, "digest": "a"}])
        ('cat',)
    """
    return _words_where(parts, forget=True)


def exaggerated(parts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the concepts that parts exaggerate: those of a strength below 0.

    Example:
        >>> exaggerated([{"concept": "cat", "method": "uce", "strength": -0.5, "digest": "a"}])
        ('cat',)
    """
    return _words_where(parts, forget=False)


def named(part: Mapping[str, Any]) -> str:
    """Return a part in words.

    Example:
        >>> named({"concept": "cat", "method": "uce", "strength": 0.5})
        'cat (uce, strength 0.5)'
    """
    return f"{', '.join(words_of(part))} ({part['method']}, strength {part['strength']:g})"


def told(part: Mapping[str, Any]) -> str:
    """Return what a part does to its concepts: "forgets", "exaggerates", or "leaves" at strength 0."""
    strength = part["strength"]
    return "forgets" if strength > 0 else "exaggerates" if strength < 0 else "leaves"


def doing(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return what an edit of these parts makes a model do, as the end of a sentence.

    Example:
        >>> doing([{"concept": "cat", "method": "uce", "strength": 1.0, "digest": "a"}])
        'forget “cat”'
    """
    done = {"forget": forgotten(parts), "exaggerate": exaggerated(parts)}
    clauses = [f"{verb} {listing(words)}" for verb, words in done.items() if words]
    return " and ".join(clauses) or "draw what it drew before"


def listing(words: Sequence[str]) -> str:
    """Return words in quotes, the last after an "and".

    Example:
        >>> listing(["cat", "dog", "fox"])
        '“cat”, “dog” and “fox”'
    """
    *others, last = [f"“{word}”" for word in words]
    return f"{', '.join(others)} and {last}" if others else last


def same_strength(one: float, other: float) -> bool:
    """Return whether two strengths are equal but for the rounding of their products."""
    return math.isclose(one, other, rel_tol=_SAME_STRENGTH, abs_tol=_SAME_STRENGTH)


def less(listed: Sequence[Mapping[str, Any]], gone: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return parts without others: strengths are subtracted, and what remains of a part stays listed.

    Of an edit that is listed several times, the one of the strength that is taken away goes; if there is none, the
    entries become one, of what remains of their sum: below 0 if more is taken away than was there.

    Raises:
        EditError: If one of the others is not among the parts.
    """
    left = [dict(part) for part in listed]
    for away in gone:
        if same_strength(away["strength"], 0.0):
            continue
        same = [i for i, part in enumerate(left) if _identity(part) == _identity(away)]
        if not same:
            raise EditError(
                f"the edit of {named(away)} is not in this one, which is made of "
                f"{'; '.join(named(part) for part in left) or 'nothing'}; take away an edit that is in it, the very "
                "one that was added, or add up those that should stay"
            )
        equal = [i for i in same if same_strength(left[i]["strength"], away["strength"])]
        if equal:
            del left[equal[-1]]
            continue
        whole = math.fsum(left[i]["strength"] for i in same)
        rest = {**left[same[0]], "strength": whole - away["strength"]}
        kept = [] if same_strength(whole, away["strength"]) else [rest]
        before, after = left[: same[0]], left[same[0] :]
        left = [*before, *kept, *(part for part in after if _identity(part) != _identity(away))]
    return left


def _identity(part: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what tells edits apart: two that change nothing, or were made alike, differ in what they are about."""
    return part["digest"], part["concept"], part["method"]


def _words_where(parts: Sequence[Mapping[str, Any]], *, forget: bool) -> tuple[str, ...]:
    sums: dict[tuple[str, str, str], float] = {}
    for part in parts:
        sums[_identity(part)] = sums.get(_identity(part), 0.0) + part["strength"]
    found: dict[str, None] = {}
    for part in parts:
        strength = sums[_identity(part)]
        if not same_strength(strength, 0.0) and (strength > 0) is forget:
            found |= dict.fromkeys(words_of(part))
    return tuple(found)
