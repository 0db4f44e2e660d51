"""How far two sets of pictures, or two pictures, are apart, in the features of some network.

None of these numbers means anything without the network's name, and FID not without n: its estimate is too high by
about a constant / n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aizheimer.errors import InputError

LEAST_PICTURES = 50
"""KID and CMMD of fewer pictures than this are noise. Ours: their papers state no least number."""

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
"""Of the authors' code."""


def least_pictures(metric: str, *, dim: int) -> int:
    """Return how many pictures a distance needs on each side.

    FID needs more pictures than the vectors have numbers: n vectors span at most n - 1 directions, so with fewer the
    covariance is singular and its square root is mostly rounding.

    Example:
        >>> least_pictures("fid", dim=2048), least_pictures("kid", dim=2048)
        (2049, 50)
    """
    return dim + 1 if metric == "fid" else LEAST_PICTURES


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Return FID: the Fréchet distance between Gaussians fitted to two sets of vectors.

    With means m, r and covariances S, R:  |m - r|² + tr(S + R - 2 (S R)^½),  by torchmetrics in float64.

    Args:
        features: (n, dim).
        reference: (n', dim).

    Raises:
        InputError: If either set is not larger than ``dim``, or holds what is not a number.

    References:
        Heusel et al., GANs trained by a two time-scale update rule, arXiv 1706.08500, equation 6.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    sets = _checked("fid", features, reference)
    metric = FrechetInceptionDistance(feature=_Given(sets[0].shape[1]))
    metric.update(sets[0], real=False)
    metric.update(sets[1], real=True)
    return float(metric.compute())


def kernel_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Return KID: the unbiased squared maximum mean discrepancy of a cubic kernel, over all pictures at once.

    k(x, y) = (x·y / dim + 1)³, by torchmetrics in float64. It may be negative. The paper averages over random subsets
    of 1,000; one estimate over all pictures draws nothing at random and has less variance.

    Args:
        features: (n, dim), n at least `LEAST_PICTURES`.
        reference: (n, dim), as many.

    Raises:
        InputError: If the sets are too small, differ in size, or hold what is not a number.

    References:
        Bińkowski et al., Demystifying MMD GANs, arXiv 1801.01401, section 4.
    """
    from torchmetrics.image.kid import poly_mmd

    features_, reference_ = _checked("kid", features, reference)
    if len(features_) != len(reference_):
        raise InputError(f"KID: got {len(features_)} and {len(reference_)} pictures; give as many of both")
    return float(poly_mmd(reference_, features_))


def cmmd(features: np.ndarray, reference: np.ndarray) -> float:
    """Return CMMD: the squared maximum mean discrepancy of unit vectors under a Gaussian kernel, times 1,000.

    k(x, y) = exp(-|x - y|² / 2σ²) with σ = 10; the means run over all pairs, a picture with itself included, as in the
    authors' code (the V-statistic), so it is never negative.

    Args:
        features: (n, dim) of a CLIP; scaled to unit length here.
        reference: (n', dim).

    Raises:
        InputError: If a set is smaller than `LEAST_PICTURES`, or holds what is not a number.

    References:
        Jayasumana et al., Rethinking FID, arXiv 2401.09603, section 4.
    """
    x, y = (array.numpy() for array in _checked("cmmd", features, reference))
    x, y = (array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12) for array in (x, y))

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
        return float(np.exp(-np.maximum(squares, 0.0) / (2 * CMMD_SIGMA**2)).mean())

    return CMMD_SCALE * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


def perceptual_distance(maps: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> np.ndarray:
    """Return how far each picture is from its counterpart, as LPIPS without its learned weights.

    At every place of every layer the channels are scaled to unit length; the squared differences are summed over
    channels, averaged over places, and averaged over layers (LPIPS sums them).

    Args:
        maps: (n, positions, channels) of each layer.
        reference: The same of the counterparts, row by row.

    Returns:
        (n,), in [0, 4]; 0 where nothing changed.

    Raises:
        ValueError: If the layers or shapes differ.

    References:
        Zhang et al., The unreasonable effectiveness of deep features, arXiv 1801.03924, equation 1 with w = 1.
    """
    if not maps or [layer.shape for layer in maps] != [layer.shape for layer in reference]:
        shapes = [layer.shape for layer in maps], [layer.shape for layer in reference]
        raise ValueError(f"perceptual distance: got layers {shapes[0]} and {shapes[1]}; wanted the same")
    layers = [((_unit(a) - _unit(b)) ** 2).sum(-1).mean(-1) for a, b in zip(maps, reference, strict=True)]
    return np.mean(layers, axis=0)


class _Given(torch.nn.Module):
    """Stands where torchmetrics expects a network: the vectors are computed already."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: Tensor) -> Tensor:
        return features


def _unit(layer: np.ndarray) -> np.ndarray:
    layer = layer.astype(np.float64)
    return layer / np.maximum(np.linalg.norm(layer, axis=-1, keepdims=True), 1e-10)


def _checked(metric: str, features: np.ndarray, reference: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return both sets as float64, or say what is wrong with them."""
    if features.ndim != 2 or reference.ndim != 2 or features.shape[1] != reference.shape[1]:
        raise InputError(
            f"{metric}: got vectors {features.shape} and {reference.shape}; give (n, dim) of one extractor for both"
        )
    least = least_pictures(metric, dim=features.shape[1])
    for n in (len(features), len(reference)):
        if n < least:
            raise InputError(f"{metric}: got {n} pictures; at {features.shape[1]} numbers each it needs {least}")
    if not (np.isfinite(features).all() and np.isfinite(reference).all()):
        raise InputError(f"{metric}: got vectors that are no numbers; look at the pictures and use float32 weights")
    first, second = (torch.from_numpy(np.asarray(array, dtype=np.float64)) for array in (features, reference))
    return first, second
