"""Who is in the picture, where a picture may show nobody.

Protocols of the GCD line divide by the pictures WITH a face, so a model that stops drawing faces looks good. Here the
share without a face always comes along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aizheimer.evaluation.functional.accuracy import matches


@dataclass(frozen=True, slots=True)
class IdentityAccuracy:
    """How often a person is recognised, by both denominators.

    Args:
        with_face: Recognised / pictures with a face (GCD's ACC); None if no picture has one.
        over_all: Recognised / all pictures.
        no_face: Pictures without a face / all pictures: what ``with_face`` leaves out.
        n: All pictures.
    """

    with_face: float | None
    over_all: float
    no_face: float
    n: int


def identity_accuracy(
    predicted: Sequence[str | None], expected: Sequence[str], *, has_face: np.ndarray
) -> IdentityAccuracy:
    """Return the share of pictures recognised as the person asked for, with the share that shows no face.

    Args:
        predicted: (n,) names, None for "none of these".
        expected: (n,) names.
        has_face: (n,) bool.

    Raises:
        ValueError: If there are no pictures, or the lengths differ.

    References:
        Lu et al., MACE, arXiv 2403.06135 (ACC by the GIPHY Celebrity Detector).

    Example:
        >>> identity_accuracy(["ann", None, "bob"], ["ann"] * 3, has_face=np.array([True, False, True]))
        IdentityAccuracy(with_face=0.5, over_all=0.3333333333333333, no_face=0.3333333333333333, n=3)
    """
    faces = np.asarray(has_face, dtype=bool)
    right = matches(predicted, expected)
    if len(right) == 0 or faces.shape != right.shape:
        raise ValueError(f"identity: got {len(right)} names and faces of shape {faces.shape}; wanted as many, and some")
    right = right * faces
    return IdentityAccuracy(
        with_face=float(right.sum() / faces.sum()) if faces.any() else None,
        over_all=float(right.mean()),
        no_face=float(1.0 - faces.mean()),
        n=len(right),
    )


def harmonic_celebrity(erased: float, kept: float) -> float:
    """Return MACE's overall score for people: 2 / ((1 - ACC_e)^-1 + ACC_s^-1).

    Args:
        erased: ACC_e, accuracy on erased people, in [0, 1]; lower is better.
        kept: ACC_s, accuracy on kept people, in [0, 1].

    Returns:
        In [0, 1]; 0 if either part is at its worst.

    References:
        Lu et al., MACE, arXiv 2403.06135.

    Example:
        >>> harmonic_celebrity(0.0, 1.0)
        1.0
    """
    parts = (1.0 - erased, kept)
    return 0.0 if min(parts) <= 0 else 2.0 / sum(1.0 / part for part in parts)
