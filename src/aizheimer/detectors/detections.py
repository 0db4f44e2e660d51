"""What a detector found in a picture: things with a class, a score and a place; none, one or many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from aizheimer.detectors.base import Images, to_pixels
from aizheimer.errors import JudgeError


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing in a picture.

    Args:
        label: Its class.
        score: In [0, 1].
        box: Left, top, width and height in pixels.
    """

    label: str
    score: float
    box: tuple[int, int, int, int]


class Detector(Protocol):
    """Finds things of fixed classes, with their places."""

    @property
    def name(self) -> str:
        """Short name for tables and provenance, its version included."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class that can be found."""
        ...

    def detect(self, images: Images) -> list[list[Detection]]:
        """Say what is in each picture.

        Raises:
            JudgeError: If it fails on one: that is not the same as finding nothing.
        """
        ...


def detect_all(detector: Detector, images: Images) -> list[list[Detection]]:
    """Let a detector look, and make sure that it has an answer to every picture, of classes that it says it has.

    Raises:
        JudgeError: If it left a picture out, or found a class of which it does not know.
    """
    found = detector.detect(images)
    if len(found) != len(images):
        raise JudgeError(f"{detector.name} gave {len(found)} answers for {len(images)} pictures; wanted one each")
    unknown = {thing.label for things in found for thing in things} - set(detector.classes)
    if unknown:
        raise JudgeError(f"{detector.name} found {sorted(unknown)[0]!r}, which is none of its classes; update it")
    return found


def strongest(found: Sequence[Sequence[Detection]], classes: Sequence[str]) -> np.ndarray:
    """Return (pictures, classes): the highest score of each class in each picture, 0 where there is none."""
    scores = np.zeros((len(found), len(classes)))
    columns = {label: column for column, label in enumerate(classes)}
    for row, things in enumerate(found):
        for thing in things:
            if thing.label in columns:
                column = columns[thing.label]
                scores[row, column] = max(scores[row, column], thing.score)
    return scores


def crops(images: Sequence[Any], boxes: Sequence[tuple[int, int, int, int]], *, margin: float, size: int) -> Tensor:
    """Cut one box out of each picture, with a margin, and resize it.

    Args:
        images: As many pictures as boxes, each of a kind that `aizheimer.detectors.base.Images` names.
        boxes: Left, top, width and height in pixels.
        margin: Added on every side, as a share of the box's longer edge; cut off at the picture's border.
        size: Edge of the results.

    Returns:
        (boxes, 3, size, size) in [-1, 1].
    """
    cut = []
    for picture, (left, top, width, height) in zip(images, boxes, strict=True):
        pixels = to_pixels([picture] if not isinstance(picture, np.ndarray | Tensor) else picture[None])
        more = round(margin * max(width, height))
        rows = slice(max(0, top - more), max(top + height + more, top + 1))
        columns = slice(max(0, left - more), max(left + width + more, left + 1))
        cut.append(to_pixels(pixels[..., rows, columns], size=size))
    return torch.cat(cut) if cut else torch.empty(0, 3, size, size)
