"""Arrays to PNG, and PNG to something a page can hold."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from aizheimer._files import atomic


def to_png(image: np.ndarray | Image.Image) -> bytes:
    """Return uint8 (height, width, 3 or 4), or a PIL image, as an optimised PNG.

    Example:
        >>> to_png(np.zeros((2, 2, 3), np.uint8))[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(image: np.ndarray | Image.Image, path: Path) -> Path:
    """Write a picture, all of it or nothing, and return where."""
    data = to_png(image)
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return path


def data_uri(image: np.ndarray | Image.Image) -> str:
    """Return a picture as a ``data:`` address, so that a page needs no second file."""
    return "data:image/png;base64," + base64.b64encode(to_png(image)).decode("ascii")


def enlarge(image: np.ndarray, *, edge: int) -> Image.Image:
    """Return the picture with an edge of about ``edge`` pixels: whole multiples keep small pictures crisp.

    Args:
        image: uint8 (height, width, 3).
        edge: Wanted width in pixels. Smaller pictures grow by the nearest whole factor, larger ones shrink to it.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    if width > edge:
        return picture.resize((edge, round(edge * height / width)), Image.Resampling.LANCZOS)
    factor = max(1, round(edge / width))
    return picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
