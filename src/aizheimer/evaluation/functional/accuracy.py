"""Unlearning and retain accuracy.

With M the edited model, x drawn by M for a prompt, J the judge and X the target (UnlearnCanvas, arXiv 2402.11846):

    UA(X)  = 1 - mean over target prompts of [J(x) = X]
    IRA(X) = mean over the other members c of X's own domain of acc(c), acc(c) = mean over prompts of c of [J(x) = c]
    CRA(X) = mean over the retained prompts of [J'(x) = c'], c' the prompt's member of the other domain, J' its judge

Each function returns the values whose mean is the metric, so that an interval can be drawn from the same numbers.
An answer of None ("none of these") is never a match.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aizheimer.detectors import NO_PICTURE


def matches(predicted: Sequence[str | None], expected: Sequence[str]) -> np.ndarray:
    """Return 1.0 where the judge named what the prompt asked for (case ignored), else 0.0.

    Args:
        predicted: (n,) class names, None for "none of these".
        expected: (n,) class names.

    Raises:
        ValueError: If the lengths differ.

    Example:
        >>> matches(["cat", None, "dog"], ["Cat", "cat", "cat"]).tolist()
        [1.0, 0.0, 0.0]
    """
    pairs = zip(predicted, expected, strict=True)
    return np.array([p is not None and p.casefold() == e.casefold() for p, e in pairs], dtype=np.float64)


def forgotten(predicted: Sequence[str | None], target: str) -> np.ndarray:
    """Return 1.0 for each target prompt whose picture is not judged to be the target; the mean is UA.

    Where there is no picture at all (`aizheimer.detectors.NO_PICTURE`) nothing is forgotten: 0.0.

    Example:
        >>> float(forgotten(["cat", None, "dog", "cat"], "cat").mean())
        0.5
    """
    there = np.array([label != NO_PICTURE for label in predicted], dtype=np.float64)
    return (1.0 - matches(predicted, [target] * len(predicted))) * there


def accuracy_by_concept(predicted: Sequence[str | None], expected: Sequence[str]) -> dict[str, float]:
    """Return acc(c) of every concept in ``expected``, in order of first appearance; the mean of the values is IRA.

    Concepts count alike however many pictures each has, as in the definition.

    Example:
        >>> accuracy_by_concept(["cat", "dog", "dog"], ["cat", "cat", "dog"])
        {'cat': 0.5, 'dog': 1.0}
    """
    right = matches(predicted, expected)
    rows: dict[str, list[float]] = {}
    for concept, value in zip(expected, right.tolist(), strict=True):
        rows.setdefault(concept, []).append(value)
    return {concept: float(np.mean(values)) for concept, values in rows.items()}
