"""The null space of prompts that an edit must not touch, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer.backbones.conditioning import Conditioning, joined
from aizheimer.errors import ConceptError
from aizheimer.modules.coefficients import NullSpace, null_space, prompts_that_fit


@dataclass(frozen=True, kw_only=True)
class HeldPrompts:
    """Encoded prompts whose keys and values stay.

    Args:
        null: The empty prompt.
        reserved: Prompts of concepts that are forgotten in runs of their own; None for none.
        protected: Retain prompts.
    """

    null: Conditioning
    reserved: Conditioning | None
    protected: Conditioning

    @property
    def rows(self) -> Float[Tensor, "prompts tokens dim"]:
        """All of them, the empty prompt first, then the reserved ones."""
        parts = [self.null, *([self.reserved] if self.reserved is not None else []), self.protected]
        return joined(parts).tokens


def space_beside(
    held: HeldPrompts, forgotten: Mapping[str, Float[Tensor, "prompts tokens dim"]], *, tolerance: float, method: str
) -> NullSpace:
    """Return the directions that no held prompt has a part in, and every forgotten concept has.

    Args:
        held: What must stay.
        forgotten: The encoded prompts of each concept.
        tolerance: See `null_space`.
        method: Its name, for messages.

    Raises:
        ConceptError: If nothing is left, with how many prompts fit; or if nothing that is left reaches a concept.
    """
    rows = held.rows
    space = null_space(rows.flatten(0, 1), tolerance=tolerance)
    if len(space.basis) == 0:
        raise _full(held, tolerance=tolerance, method=method)
    for words, tokens in forgotten.items():
        if _reach(space, tokens) <= max(space.leakage, 1e-6):
            raise ConceptError(
                f"{method}: what '{words}' is made of is in the {len(rows) - 1} protected and reserved prompts too, so "
                "no change can reach it alone; lower protect or tolerance, or reserve fewer concepts"
            )
    return space


def space_record(space: NullSpace, forgotten: Mapping[str, Tensor], *, tolerance: float) -> dict[str, Any]:
    """Return JSON values for the provenance; ``reach`` is that of the concept it reaches least."""
    return {
        "dimensions": len(space.basis),
        "rank": space.rank,
        "tolerance": tolerance,
        "leakage": space.leakage,
        "bound": space.bound,
        "reach": min(_reach(space, tokens) for tokens in forgotten.values()),
    }


def leakage_line(record: Mapping[str, Any]) -> str:
    """Return what a `space_record` says of how still the protected and reserved prompts are held."""
    return (
        f"no kept token has more than {record['bound']:.2g} in the null space (tolerance {record['tolerance']:g}); "
        f"the most is {record['leakage']:.2g} of a token's length"
    )


def _full(held: HeldPrompts, *, tolerance: float, method: str) -> ConceptError:
    rows, protected = held.rows, len(held.protected)
    reserved = 0 if held.reserved is None else len(held.reserved)
    fit = max(prompts_that_fit(rows, tolerance=tolerance) - 1, 0)
    beside = f" and {reserved} reserved" if reserved else ""
    do = f"set protect={fit - reserved}" if fit >= reserved else f"set protect=0 and reserve at most {fit} prompts"
    return ConceptError(
        f"{method}: {protected} protected{beside} prompts leave no null space in {rows.shape[-1]} dimensions at "
        f"tolerance {tolerance:g}; {fit} fit: {do}, or raise tolerance"
    )


def _reach(space: NullSpace, tokens: Tensor) -> float:
    """Return the largest part of a token of some prompts that lies in the null space."""
    rows = tokens.flatten(0, 1).double()
    return float((torch.linalg.vector_norm(rows @ space.basis.T, dim=1) / rows.norm(dim=1)).max())
