"""Which edits have a slider under Combine, and where it stands: what a visitor has set stays when the list changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STACKED = 6
"""Edits that can be added up at once."""


@dataclass(frozen=True, kw_only=True)
class Sliders:
    """Edits with their strengths, in the order in which the page shows them.

    Args:
        strengths: By the edit's name; 0 leaves it out of the sum.
    """

    strengths: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, names: Sequence[str], values: Sequence[float | None]) -> Sliders:
        """Return what the page shows; sliders beyond the names are hidden."""
        return cls(strengths={name: float(value or 0.0) for name, value in zip(names, values, strict=False)})

    def choose(self, names: Sequence[str]) -> Sliders:
        """Return sliders of these edits, the first of them if there are too many; those that stay keep their place."""
        return Sliders(strengths={name: self.strengths.get(name, 0.0) for name in names[:STACKED]})

    def follow(self, names: Sequence[str], *, old: Sequence[str]) -> Sliders:
        """Return sliders after the list of edits has changed.

        Those that were moved stay, as long as their edit is there. New edits come before what stands at 0.

        Args:
            names: All edits there are now, the newest first.
            old: All that there were.

        Example:
            >>> sliders = Sliders(strengths={"cat": 0.5, "dog": 0.0})
            >>> dict(sliders.follow(["fox", "dog", "cat"], old=["dog", "cat"]).strengths)
            {'fox': 0.0, 'dog': 0.0, 'cat': 0.5}
        """
        here = [name for name in self.strengths if name in names]
        moved = [name for name in here if self.strengths[name] != 0]
        new = [name for name in names if name not in old and name not in here]
        kept = set(list(dict.fromkeys([*moved, *new, *here]))[:STACKED])
        return self.choose([name for name in names if name in kept])
