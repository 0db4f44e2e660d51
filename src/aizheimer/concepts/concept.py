"""The concept to forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from aizheimer.errors import ConceptError, did_you_mean

Kind = Literal["object", "style"]


@dataclass(frozen=True)
class Concept:
    """What a model must no longer draw, what may take its place, and what must stay.

    Args:
        target: The concept to forget, as it is written in a prompt.
        anchor: What takes its place; empty for nothing in particular.
        keep: Concepts named by the user that must stay as they are.
        kind: ``"object"`` (a thing or a person) or ``"style"`` (a way of drawing).

    Raises:
        ConceptError: The target is empty, is also kept, or is its own anchor; or the kind is unknown.

    Example:
        >>> Concept("Santa Claus", anchor="old man", keep=("Mrs. Claus",)).kind
        'object'
    """

    target: str
    anchor: str = ""
    keep: tuple[str, ...] = ()
    kind: Kind = "object"

    def __post_init__(self) -> None:
        if isinstance(self.keep, str):
            raise ConceptError(
                f"keep: got the text {self.keep!r}, wanted a sequence of concepts; write ({self.keep!r},)."
            )
        for field, value in (("target", self.target.strip()), ("anchor", self.anchor.strip())):
            object.__setattr__(self, field, value)
        object.__setattr__(self, "keep", tuple(word.strip() for word in self.keep))
        self._check()

    def _check(self) -> None:
        if not self.target:
            raise ConceptError("the concept to forget is empty; name what the model must forget.")
        if self.kind not in get_args(Kind):
            hint = did_you_mean(str(self.kind), get_args(Kind))
            raise ConceptError(f"kind: got {self.kind!r}, wanted one of {', '.join(get_args(Kind))}.{hint}")
        if "" in self.keep:
            raise ConceptError("keep: got an empty concept; name what must stay, or leave it out.")
        if self.target.casefold() in {word.casefold() for word in self.keep}:
            raise ConceptError(f"keep: {self.target!r} cannot be kept and forgotten at once; take it out of keep.")
        if self.target.casefold() == self.anchor.casefold():
            raise ConceptError(
                f"anchor: {self.anchor!r} is the concept to forget itself; name another, or leave it out."
            )
