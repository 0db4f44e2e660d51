"""Pictures that a visitor sends: few, small, and nothing but pictures."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from aizheimer.errors import DataError
from aizheimer.studio.visitors import Visitor

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_FILES = 64
MOST_BYTES = 12_000_000
MOST_PIXELS = 40_000_000
_HASH = re.compile(r"[0-9a-f]{64}")
KEPT_EDGE = 1024
"""Longest edge of what is kept: no model here looks at more."""


def take(paths: Sequence[str | Path], visitor: Visitor, *, uploads: Path) -> Path:
    """Decode uploaded pictures, write them anew into a folder of the visitor's, and delete the uploads.

    What is kept is what PIL made of them, under names of ours: no byte of the file and no letter of its name stays.

    Args:
        paths: Files below ``uploads``.
        visitor: Who sent them.
        uploads: Where the server puts uploads.

    Returns:
        The folder, with ``001.png`` and so on.

    Raises:
        DataError: There are none or too many, or one is no picture, too large, or not an upload. Nothing is kept then.
    """
    files = [_uploaded(path, uploads) for path in paths]
    try:
        if not 0 < len(files) <= MOST_FILES:
            raise DataError(f"got {len(files)} pictures, wanted 1 to {MOST_FILES}.")
        pictures = [decode(file) for file in files]
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    folder = visitor.new_file("uploads", "pictures")
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, start=1):
        picture.save(folder / f"{number:03d}.png", format="PNG")
    return folder


def decode(file: Path) -> Image.Image:
    """Return a file's picture, upright and no larger than needed.

    The size is read from the header before a pixel is decoded, so that a small file of many pixels is refused unread.

    Raises:
        DataError: It is too large, or no picture of a known format.
    """
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise DataError(f"got a picture of {size / 1e6:.0f} MB, wanted at most {MOST_BYTES // 1_000_000} MB.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image.size)
                image.load()
                upright = ImageOps.exif_transpose(image).convert("RGBA")
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"got a picture of too many pixels, wanted at most {MOST_PIXELS // 1_000_000} million."
        ) from error
    except Exception as error:  # PIL's decoders raise whatever their formats' parsers do
        raise DataError("got a file that is no PNG, JPEG or WebP picture, or a damaged one.") from error
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    opaque.thumbnail((KEPT_EDGE, KEPT_EDGE))
    return opaque


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise DataError(
            f"got a picture of {size[0]} x {size[1]} pixels, wanted at most {MOST_PIXELS // 1_000_000} million."
        )


def _uploaded(path: str | Path, uploads: Path) -> Path:
    """Return an upload's own path: Gradio puts each into a folder that its hash names. What lies elsewhere is none."""
    file = Path(path).resolve()
    upload = file.parent.parent == uploads.resolve() and _HASH.fullmatch(file.parent.name) is not None
    if not upload or not file.is_file():
        raise DataError("got a file that was not uploaded; choose it again.")
    return file
