"""UnlearnCanvas's accuracies on a grid of styles and objects, with what its users count differently as switches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from aizheimer.evaluation.functional.accuracy import accuracy_by_concept, forgotten


@dataclass(frozen=True, kw_only=True)
class CanvasAccuracies:
    """What one model's answers on the grid come to.

    Args:
        ua: (n,) 1.0 for each picture of the target that is not judged to be it.
        ira: acc(c) of the other members c of the target's domain.
        cra: acc(c') of the members c' of the other domain.
    """

    ua: np.ndarray
    ira: dict[str, float]
    cra: dict[str, float]


def canvas_accuracies(
    own: Sequence[str | None],
    cross: Sequence[str | None],
    *,
    own_wanted: Sequence[str],
    cross_wanted: Sequence[str],
    target: str,
    target_in_cross: bool = True,
    uncounted: Collection[str] = (),
) -> CanvasAccuracies:
    """Count UA, IRA and CRA of one edit on the grid.

        UA(X)  = 1 - acc(X on the pictures of X)
        IRA(X) = mean of acc(c) over the other members c of X's own domain
        CRA(X) = mean of acc(c') over the members c' of the other domain

    No aggregation script was released, and users count differently; both switches say which way. Every member counts
    alike, and every picture counts by what *its own* prompt asks for, never by its place in a batch.

    Args:
        own: (n,) answers of the judge of the target's domain.
        cross: (n,) answers of the other domain's judge.
        own_wanted: (n,) the member of the target's domain that each prompt asks for.
        cross_wanted: (n,) the member of the other domain.
        target: X.
        target_in_cross: Whether CRA counts the pictures whose prompts ask for X, too.
        uncounted: Members that are drawn but averaged into neither IRA nor CRA ("Seed_Images" is no style: without it
            the authors' 49 other styles, with it 50).

    Returns:
        The values whose means are the three accuracies.

    Raises:
        ValueError: If no picture asks for the target.

    References:
        Zhang et al., UnlearnCanvas, arXiv 2402.11846, section 4; OPTML-Group/UnlearnCanvas issues 9 and 13.

    Example:
        >>> found = canvas_accuracies(
        ...     ["fox", "dog"], ["flat", "flat"], own_wanted=["cat", "dog"], cross_wanted=["flat", "flat"], target="cat"
        ... )
        >>> found.ua.tolist(), found.ira, found.cra
        ([1.0], {'dog': 1.0}, {'flat': 1.0})
    """
    left_out = {name.casefold() for name in uncounted}
    asked = [wanted.casefold() == target.casefold() for wanted in own_wanted]
    if not any(asked):
        raise ValueError(f"canvas: no picture asks for {target!r}")
    in_domain = [not hit and name.casefold() not in left_out for hit, name in zip(asked, own_wanted, strict=True)]
    across = [
        (target_in_cross or not hit) and name.casefold() not in left_out
        for hit, name in zip(asked, cross_wanted, strict=True)
    ]
    return CanvasAccuracies(
        ua=forgotten(list(compress(own, asked)), target),
        ira=accuracy_by_concept(list(compress(own, in_domain)), list(compress(own_wanted, in_domain))),
        cra=accuracy_by_concept(list(compress(cross, across)), list(compress(cross_wanted, across))),
    )
