"""What every judge offers, and how pictures of any kind become its input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from aizheimer._records import parse_json
from aizheimer.detectors import NO_PICTURE
from aizheimer.errors import InputError, JudgeError, ModelError

Images: TypeAlias = np.ndarray | Tensor | Sequence[Image.Image]
"""uint8 array (batch, height, width, 3), float tensor (batch, 3, height, width) in [-1, 1], or PIL images."""


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """What a judge saw in a batch of pictures.

    Attributes:
        labels: One class name a picture, or None for "none of these".
        confidence: (batch,) calibrated probability of the most likely class, rejected or not.
        probabilities: (batch, classes) calibrated probabilities.
    """

    labels: list[str | None]
    confidence: Tensor
    probabilities: Tensor


class Judge(Protocol):
    """Names what is in a picture, out of a fixed list of classes.

    A judge that also has a property ``weights``, the hash of its network, is told from others of its name and classes:
    their results are neither taken for each other nor put into one table. All of ours have it.
    """

    @property
    def name(self) -> str:
        """Short name for tables and provenance."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class that can be answered."""
        ...

    def judge(self, images: Images) -> JudgeResult:
        """Say what each picture shows."""
        ...


def find_class(judge: Judge, label: str) -> str | None:
    """Return the judge's own spelling of ``label`` (case and outer spaces ignored), or None if it has no such class."""
    wanted = label.strip().casefold()
    return next((name for name in judge.classes if name.strip().casefold() == wanted), None)


def see(judge: Judge, images: Images) -> JudgeResult:
    """Let a judge look, and make sure that it has an answer to every picture; `NO_PICTURE` where there is none.

    Raises:
        JudgeError: If it gave fewer or more answers than there are pictures.
    """
    seen = judge.judge(images)
    if len(seen.labels) != len(images):
        raise JudgeError(
            f"{judge.name} gave {len(seen.labels)} answers for {len(images)} pictures; wanted one each, "
            "for a picture left out would count as forgotten or as kept"
        )
    return without_void(seen, images)


def without_void(seen: JudgeResult, images: Images) -> JudgeResult:
    """Return what a judge saw, its answer to every uint8 picture without a lit pixel replaced by `NO_PICTURE`."""
    if not isinstance(images, np.ndarray):
        return seen
    there: list[bool] = lit(images).tolist()
    labels = [label if is_there else NO_PICTURE for label, is_there in zip(seen.labels, there, strict=True)]
    return replace(seen, labels=labels)


def lit(images: np.ndarray) -> np.ndarray:
    """Return which uint8 pictures (batch, height, width, 3) have a pixel that is not black, as bool (batch,)."""
    return np.any(images, axis=(1, 2, 3))


def reject_share(seen: JudgeResult) -> float:
    """Return the share of pictures that the judge called "none of these"; 0.0 of no pictures."""
    return sum(label is None for label in seen.labels) / len(seen.labels) if seen.labels else 0.0


def decide(
    probabilities: Float[Tensor, "batch classes"], classes: tuple[str, ...], *, reject_threshold: float
) -> JudgeResult:
    """Turn probabilities into names: the most likely class, or None where it is less likely than the threshold.

    Raises:
        JudgeError: If a probability is not a number: it is under every threshold, so it would count as "not found".
    """
    if not torch.isfinite(probabilities).all():
        broken = (~torch.isfinite(probabilities).all(dim=-1)).nonzero().flatten().tolist()
        raise JudgeError(
            f"the judge's probabilities of {len(broken)} of {len(probabilities)} pictures are no numbers "
            f"(the first is picture {broken[0]}); use float32 weights, and look at that picture"
        )
    confidence, index = probabilities.max(dim=-1)
    labels: list[str | None] = [
        classes[i] if c >= reject_threshold else None for i, c in zip(index.tolist(), confidence.tolist(), strict=True)
    ]
    return JudgeResult(labels=labels, confidence=confidence, probabilities=probabilities)


def to_pixels(images: Images, *, size: int | None = None) -> Float[Tensor, "batch 3 height width"]:
    """Return pictures as float32 in [-1, 1], resized (bicubic, antialiased) to ``size`` if they are not that large.

    Args:
        images: See :data:`Images`. PIL images may have any mode and size if ``size`` is given.
        size: Edge in pixels of the square result; None keeps the pictures' own size.

    Raises:
        InputError: For an array or tensor of another shape or type.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(
                f"images: got a tensor {tuple(images.shape)} of {images.dtype}; "
                "give float (batch, 3, height, width) in [-1, 1]"
            )
        return _resize(images.detach().float(), size)
    if isinstance(images, np.ndarray):
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InputError(
                f"images: got an array {images.shape} of {images.dtype}; give uint8 (batch, height, width, 3)"
            )
        return _resize(torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1.0, size)
    if not images:
        return torch.empty(0, 3, size or 0, size or 0)
    return torch.cat([to_pixels(np.asarray(image.convert("RGB"))[None], size=size) for image in images])


def _resize(pixels: Tensor, size: int | None) -> Tensor:
    if size is None or pixels.shape[-2:] == (size, size) or pixels.shape[0] == 0:
        return pixels
    return F.interpolate(pixels, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(-1.0, 1.0)


def read_json(path: Path, *, wanted: str) -> dict[str, Any]:
    """Read one JSON object of a model folder.

    Raises:
        ModelError: If the file is missing or is not a JSON object; ``wanted`` says what the folder should be.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent}: no {path.name} there; give {wanted}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); give {wanted}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: got JSON that is not an object; give {wanted}")
    return content


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the progress bars of ``from_pretrained`` and put the setting back."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
