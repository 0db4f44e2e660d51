"""Pixel checks that catch what a judge cannot: nothing changed, or nothing is drawn any more."""

from __future__ import annotations

import numpy as np

UNCHANGED_LEVELS = 2
"""Two pictures are the same if no channel of no pixel differs by more than this many of 255 levels."""

ROUNDED_LEVELS = 16
"""The same where networks compute in bfloat16: a change of a weight's last bits moves single pixels by up to 10."""

BLANK_DEVIATION = 4.0
"""A picture is blank if its grey values deviate by less than this (of 255 levels) from their mean."""

NOISE_CORRELATION = 0.2
"""A picture is noise if pixels a sixteenth of its edge apart correlate less than this."""


def unchanged(original: np.ndarray, edited: np.ndarray, *, levels: int = UNCHANGED_LEVELS) -> np.ndarray:
    """Return where a picture stayed as it was: its largest difference is at most ``levels`` / 255.

    Args:
        original: uint8 (n, height, width, 3).
        edited: uint8, same shape.
        levels: 0 asks for identical bits.

    Returns:
        (n,) bool.

    Raises:
        ValueError: If the shapes differ or the type is not uint8 (where a difference would wrap around).
    """
    if original.shape != edited.shape or original.dtype != np.uint8 or edited.dtype != np.uint8:
        raise ValueError(
            f"unchanged: got {original.shape} {original.dtype} and {edited.shape} {edited.dtype}, wanted equal uint8"
        )
    difference = np.abs(original.astype(np.int16) - edited.astype(np.int16))
    return difference.reshape(len(original), -1).max(axis=1, initial=0) <= levels


def unchanged_share(original: np.ndarray, edited: np.ndarray, *, levels: int = UNCHANGED_LEVELS) -> float:
    """Return the share of pictures that stayed as they were."""
    return float(unchanged(original, edited, levels=levels).mean())


def blank(images: np.ndarray, *, deviation: float = BLANK_DEVIATION) -> np.ndarray:
    """Return where a picture shows nothing: one flat tone.

    Args:
        images: uint8 (n, height, width, 3).
        deviation: Smallest standard deviation, in levels of 255, of a picture that shows something.

    Returns:
        (n,) bool.
    """
    grey = _grey(images).reshape(len(images), -1)
    return grey.std(axis=1) < deviation


def noise(images: np.ndarray, *, correlation: float = NOISE_CORRELATION) -> np.ndarray:
    """Return where a picture is noise: its pixels say nothing about those a little further on.

    The measure is the autocorrelation of the grey values at a lag of 1/16 of the edge, right and down averaged. White
    noise, and latent noise that went through a decoder, have about 0; pictures of things have about 0.5 and more. Fine
    textures (grass from above) can fall under the limit too: compare with the unedited model's share.

    Args:
        images: uint8 (n, height, width, 3), not blank: a blank picture is never noise.
        correlation: The limit.

    Returns:
        (n,) bool.
    """
    grey = _grey(images)
    lag = max(1, grey.shape[-1] // 16)
    centred = grey - grey.mean(axis=(1, 2), keepdims=True)
    variance = np.maximum((centred**2).mean(axis=(1, 2)), 1e-12)
    right = (centred[:, :, lag:] * centred[:, :, :-lag]).mean(axis=(1, 2)) / variance
    down = (centred[:, lag:] * centred[:, :-lag]).mean(axis=(1, 2)) / variance
    return ((right + down) / 2 < correlation) & ~blank(images)


def broken(images: np.ndarray) -> np.ndarray:
    """Return where a picture is blank or noise."""
    return blank(images) | noise(images)


def _grey(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64).mean(axis=-1)
