"""A folder of photos as pixels the autoencoder expects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from aizheimer.errors import DataError

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What PIL raises for files that are no pictures, or damaged ones."""

LARGEST = 110_000_000
"""Pixels of the largest picture that is read, more than a camera has: few bytes can claim more than a memory holds."""


@dataclass(frozen=True)
class ImageSet:
    """Images that could be read.

    Args:
        pixels: (images, 3, size, size) in [-1, 1].
        names: File names, in the order of ``pixels``.
        skipped: File names that could not be read.
    """

    pixels: Tensor
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def read_images(folder: Path, size: int) -> ImageSet:
    """Read every image of a folder, turned upright and cropped to the centred square.

    Any format PIL reads is taken. Files are read in the order of their names; hidden files and sub-folders are left
    out. Transparent pixels become white. The aspect ratio is kept: what does not fit the square is cut, not squashed.

    Args:
        folder: The folder of images.
        size: Side of the squares in pixels.

    Returns:
        The images, and the names of files that could not be read (each also named in a warning).

    Raises:
        DataError: If the folder is missing, is a file, or no file in it can be read as an image.
    """
    pixels: list[Tensor] = []
    names: list[str] = []
    skipped: list[str] = []
    for path in _files(folder):
        try:
            pixels.append(read_square(path, size))
            names.append(path.name)
        except UNREADABLE as error:
            skipped.append(path.name)
            warnings.warn(f"skipped {path}: not a readable image ({error})", UserWarning, stacklevel=2)
    if not pixels:
        raise _none(folder, len(skipped))
    return ImageSet(torch.stack(pixels), tuple(names), tuple(skipped))


def check_picture_folder(folder: Path) -> None:
    """Refuse a folder that `read_images` would refuse, having read no more than the first image in it.

    Raises:
        DataError: As `read_images`.
    """
    files = _files(folder)
    for path in files:
        try:
            read_square(path, 8)
        except UNREADABLE:
            continue
        return
    raise _none(folder, len(files))


def existing_folder(folder: Path, *, of: str) -> Path:
    """Return a folder that is there.

    Args:
        folder: What was given.
        of: What should be in it, for the message.

    Raises:
        DataError: If it is missing, or a file.
    """
    if not folder.exists():
        raise DataError(f"the image folder {folder} does not exist; give a folder that holds {of}")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; give the folder that holds {of}")
    return folder


def _files(folder: Path) -> list[Path]:
    folder = existing_folder(Path(folder), of="pictures of the concept")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _none(folder: Path, unreadable: int) -> DataError:
    count = f" ({unreadable} files could not be read)" if unreadable else ""
    return DataError(f"no images in {folder}{count}; put pictures of the concept there, in a format PIL reads")


def read_square(path: Path, size: int) -> Tensor:
    """Return one picture as pixels (3, size, size) in [-1, 1]: upright, cropped to its centre, white where transparent.

    Raises:
        OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError: `UNREADABLE`: it is no picture.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {LARGEST / 1e6:.0f} million")
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except UNREADABLE:
        raise
    # A damaged picture fails in as many ways as PIL has decoders: struct.error, EOFError, KeyError, ...
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not upright.width or not upright.height:
        raise ValueError("it has no pixels")
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    square = ImageOps.fit(opaque, (size, size), method=Image.Resampling.LANCZOS, centering=(0.5, 0.5))
    array = np.array(square, dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1.0
