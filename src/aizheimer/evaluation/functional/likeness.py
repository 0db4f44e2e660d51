"""How alike two pictures are in colour, shape and composition, each in [0, 1]: numpy, no model.

No number here means anything by itself: two unrelated drawings on white share most of their colours. Compare with what
unrelated pictures score.
"""

from __future__ import annotations

import numpy as np

COLOUR_LEVELS = 4
"""Levels of each channel in a colour histogram, 64 colours in all."""

LAYOUT_CELLS = 8
"""Cells along an edge of a picture's layout."""


def colour_likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection of colour histograms: the share of pixels that can be matched by colour, place ignored.

    sum_k min(h_a[k], h_b[k]) with h the shares of 4 x 4 x 4 colours.

    Args:
        a: uint8 (n, height, width, 3).
        b: uint8, same shape.

    Returns:
        (n,), 1 for the same colours in the same amounts.

    Raises:
        ValueError: If the shapes differ or the type is not uint8.

    References:
        Swain and Ballard, Color Indexing, 1991 (histogram intersection).

    Example:
        >>> white, black = np.full((1, 8, 8, 3), 255, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
        >>> float(colour_likeness(white, black)[0]), float(colour_likeness(white, white)[0])
        (0.0, 1.0)
    """
    _check(a, b)
    return np.minimum(_histogram(a), _histogram(b)).sum(axis=1)


def shape_likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine between edge maps: whether outlines lie at the same places, colour ignored.

    An edge map is the length of the grey values' gradient, averaged over 3 x 3 pixels so that a shift of one pixel
    costs little.

    Args:
        a: uint8 (n, height, width, 3).
        b: uint8, same shape.

    Returns:
        (n,), 1 for the same outlines; 0 where only one of the two has any; 1 where neither has.

    Raises:
        ValueError: If the shapes differ or the type is not uint8.
    """
    _check(a, b)
    first, second = _edges(a), _edges(b)
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    product = norms[0] * norms[1]
    cosine = (first * second).sum(axis=1) / np.where(product > 0, product, 1.0)
    both_flat = (norms[0] == 0) & (norms[1] == 0)
    return np.where(both_flat, 1.0, np.where(product > 0, cosine.clip(0.0, 1.0), 0.0))


def layout_likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how alike the pictures are from afar: 1 - mean difference of 8 x 8 average colours, over 255.

    Args:
        a: uint8 (n, height, width, 3).
        b: uint8, same shape.

    Returns:
        (n,), 1 for the same layout.

    Raises:
        ValueError: If the shapes differ or the type is not uint8.
    """
    _check(a, b)
    return 1.0 - np.abs(_cells(a) - _cells(b)).reshape(len(a), -1).mean(axis=1) / 255.0


MEASURES = {"colour": colour_likeness, "shape": shape_likeness, "layout": layout_likeness}
"""Every measure by the name that figures use."""


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"likeness: got {a.shape} {a.dtype} and {b.shape} {b.dtype}, wanted equal uint8 (n, h, w, 3)")


def _histogram(images: np.ndarray) -> np.ndarray:
    """Return the shares (n, 64) of colours."""
    levels = images.astype(np.int64) * COLOUR_LEVELS // 256
    codes = (levels @ np.array([COLOUR_LEVELS**2, COLOUR_LEVELS, 1])).reshape(len(images), -1)
    counts = np.stack([np.bincount(row, minlength=COLOUR_LEVELS**3) for row in codes])
    return counts / codes.shape[1]


def _edges(images: np.ndarray) -> np.ndarray:
    """Return flattened edge maps (n, pixels)."""
    grey = images.astype(np.float64).mean(axis=-1)
    down, right = np.gradient(grey, axis=(1, 2))
    length = np.pad(np.hypot(down, right), ((0, 0), (1, 1), (1, 1)))
    height, width = grey.shape[1:]
    shifted = [length[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.mean(shifted, axis=0).reshape(len(images), -1)


def _cells(images: np.ndarray) -> np.ndarray:
    """Return average colours (n, cells, cells, 3); pictures smaller than the cells keep their pixels."""
    pixels = images.astype(np.float64)
    for axis in (1, 2):
        count = min(LAYOUT_CELLS, pixels.shape[axis])
        parts = np.array_split(pixels, count, axis=axis)
        pixels = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return pixels
