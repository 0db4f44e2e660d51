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
    folder = Path(folder)
    if not folder.exists():
        raise DataError(f"the image folder {folder} does not exist; give a folder that holds pictures of the concept")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; give the folder that holds the concept's pictures")
    pixels: list[Tensor] = []
    names: list[str] = []
    skipped: list[str] = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            pixels.append(_read_square(path, size))
            names.append(path.name)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            skipped.append(path.name)
            warnings.warn(f"skipped {path}: not a readable image ({error})", UserWarning, stacklevel=2)
    if not pixels:
        unreadable = f" ({len(skipped)} files could not be read)" if skipped else ""
        raise DataError(f"no images in {folder}{unreadable}; put pictures of the concept there, in a format PIL reads")
    return ImageSet(torch.stack(pixels), tuple(names), tuple(skipped))


def _read_square(path: Path, size: int) -> Tensor:
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    square = ImageOps.fit(opaque, (size, size), method=Image.Resampling.LANCZOS, centering=(0.5, 0.5))
    array = np.array(square, dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1.0
