"""A linear probe: which of two sides of a trait a picture is on, told from a judge's features. Numpy, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Probe:
    """A direction in feature space and where its two sides meet.

    Args:
        direction: (dim,).
        middle: The projection halfway between the means of both sides.
    """

    direction: np.ndarray
    middle: float

    def on_first(self, features: np.ndarray) -> np.ndarray:
        """Return bool (n,): whether features (n, dim) lie on the first side."""
        return features @ self.direction > self.middle


def fit_probe(features: np.ndarray, first: np.ndarray) -> Probe:
    r"""Return Fisher's discriminant, its covariance pulled towards a multiple of the identity.

    .. math:: w = (S + \bar\lambda I)^{-1} (\mu_1 - \mu_2)

    with :math:`S` the covariance within sides and :math:`\bar\lambda` its mean eigenvalue, so that it is defined with
    fewer pictures than numbers a picture, and does not depend on the features' scale. How many pictures a side has does
    not move the middle.

    Args:
        features: (n, dim).
        first: bool (n,): the first side.

    Raises:
        ValueError: If a side has no picture.

    Example:
        >>> probe = fit_probe(np.array([[0.0, 1.0], [0.0, 2.0], [4.0, 1.0]]), np.array([True, True, False]))
        >>> probe.on_first(np.array([[1.0, 9.0], [3.0, 9.0]])).tolist()
        [True, False]
    """
    if first.all() or not first.any():
        raise ValueError("fit_probe: a side has no picture; give some of both")
    features = features.astype(np.float64)
    sides = features[first], features[~first]
    means = [side.mean(axis=0) for side in sides]
    within = np.concatenate([side - mean for side, mean in zip(sides, means, strict=True)])
    covariance = within.T @ within / len(within)
    size = covariance.shape[0]
    shrink = float(np.trace(covariance)) / size or 1.0
    direction = np.linalg.solve(covariance + shrink * np.eye(size), means[0] - means[1])
    return Probe(direction=direction, middle=float(direction @ (means[0] + means[1]) / 2))


def held_out_accuracy(features: np.ndarray, first: np.ndarray, members: Sequence[str]) -> float:
    """Return how often a probe is right about members that it was not fitted on, mean of both sides.

    All pictures of a member are left out together: pictures of one person are no independent witnesses. Members of a
    pair, such as a man and a woman of one trade, share a name and are left out together as well.

    Args:
        features: (n, dim).
        first: bool (n,).
        members: (n,), whose picture each is.

    Raises:
        ValueError: If leaving a member out leaves a side empty.
    """
    names = np.array(members)
    right = np.zeros(len(names), dtype=bool)
    for name in dict.fromkeys(members):
        out = names == name
        right[out] = fit_probe(features[~out], first[~out]).on_first(features[out]) == first[out]
    return float((right[first].mean() + right[~first].mean()) / 2)
