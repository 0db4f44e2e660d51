"""The single values that an evaluation's figures are means of, counted again from its pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aizheimer.evaluation.functional.accuracy import accuracy_by_concept, forgotten, matches
from aizheimer.evaluation.results import EvaluationResult, ImageRecord, Metric

FIGURES = ("ua", "ira", "near", "far", "cra")
ROLES = {"ira": ("neighbour", "other"), "near": ("neighbour",), "far": ("other",)}


def units_of(result: EvaluationResult, figure: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the values of the unedited and of the edited model whose means are the figure.

    Two evaluations with the same prompts and seeds give values of the same pictures in the same rows, so that two edits
    can be compared pair by pair.

    Args:
        result: An evaluation.
        figure: Of ``FIGURES``.

    Returns:
        Two vectors (n,), pictures or concepts; None if the figure was not measured, or cannot be counted again from
        the pictures (files of a judge that spells the target otherwise).
    """
    metric: Metric | None = getattr(result, figure)
    if metric is None:
        return None
    original, edited = (_values(result, figure, side) for side in ("original", "edited"))
    counted = len(edited) == metric.n and bool(np.isclose(edited.mean(), metric.value))
    return (original, edited) if counted and np.isclose(original.mean(), metric.original) else None


def _values(result: EvaluationResult, figure: str, side: str) -> np.ndarray:
    own = result.kind
    if figure == "ua":
        left_out = result.ineffective if result.settings.effective_only else {}
        rows = [image for image in result.images if image.role == "target" and image.prompt not in left_out]
        return forgotten(_seen(rows, side, own), result.target.strip())
    if figure == "cra":
        other = "object" if own == "style" else "style"
        rows = [i for i in result.images if i.role != "target" and getattr(i, other) is not None]
        return matches(_seen(rows, side, other), [getattr(i, other) for i in rows])
    known = {near.label for near in (*result.neighbours, *result.others)}
    rows = [i for i in result.images if i.role in ROLES[figure] and getattr(i, own) in known]
    accuracies = accuracy_by_concept(_seen(rows, side, own), [getattr(i, own) for i in rows])
    return np.array(list(accuracies.values()))


def _seen(rows: Sequence[ImageRecord], side: str, domain: str) -> list[str | None]:
    return [getattr(image, f"{side}_{domain}") for image in rows]
