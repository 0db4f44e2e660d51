"""Who is in the picture: find a face first, then name it, and say how many pictures show no face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from aizheimer.detectors.base import Images, Judge, JudgeResult, see
from aizheimer.detectors.detections import Detection, Detector, crops, detect_all
from aizheimer.detectors.nudenet import FACES
from aizheimer.detectors.weights import weights_hash, weights_of
from aizheimer.errors import InputError

FACE_SIZE = 224
"""Edge of the cut faces; the judge resizes them to its own."""


@dataclass(frozen=True)
class FacesSeen:
    """What an identity judge saw.

    Args:
        seen: Names and confidence; a picture without a face is "none of these" with confidence 0.
        has_face: (batch,) bool.
    """

    seen: JudgeResult
    has_face: np.ndarray

    @property
    def no_face(self) -> float:
        """Share of pictures without a face: protocols that drop them flatter a model that stops drawing faces."""
        return float(1.0 - self.has_face.mean()) if len(self.has_face) else 0.0


@runtime_checkable
class FaceJudge(Judge, Protocol):
    """A judge of people that tells a picture without a face from the picture of a stranger."""

    def look(self, images: Images) -> FacesSeen:
        """Name the face of each picture, and say which pictures have one."""
        ...


@dataclass(frozen=True)
class IdentityJudge:
    """Finds the largest face of each picture and asks another judge whose it is.

    Both parts are pluggable: any `Detector` that has classes for faces, and any `Judge` that names people, such as an
    image classifier folder (`aizheimer.detectors.classifier.ImageJudge`) or CLIP zero-shot.

    Args:
        faces: Finds faces.
        people: Names them.
        face_classes: Which of the detector's classes are faces.
        threshold: Least score of a face.
        margin: Kept around the face on every side, as a share of its longer edge.

    Raises:
        InputError: If the detector has no such class.

    References:
        Lu et al., MACE, arXiv 2403.06135 (a face detector before the celebrity classifier).
    """

    faces: Detector
    people: Judge
    face_classes: tuple[str, ...] = FACES
    threshold: float = 0.3
    margin: float = 0.25

    def __post_init__(self) -> None:
        if missing := [label for label in self.face_classes if label not in self.faces.classes]:
            raise InputError(f"face_classes: {self.faces.name} has no class {missing[0]!r}; name its own for faces")

    @property
    def name(self) -> str:
        """Short name for tables and provenance."""
        return f"{self.people.name} on faces by {self.faces.name}"

    @property
    def weights(self) -> str:
        """Hash of both networks, as far as they tell theirs, and of what is cut out for the second."""
        parts = weights_of(self.people), weights_of(self.faces)
        return weights_hash({}, *parts, self.face_classes, self.threshold, self.margin)

    @property
    def classes(self) -> tuple[str, ...]:
        """The people it knows."""
        return self.people.classes

    def look(self, images: Images) -> FacesSeen:
        """Name the largest face of each picture.

        Raises:
            JudgeError: If a part fails on a picture.
        """
        faces = [self._largest(things) for things in detect_all(self.faces, images)]
        rows = [row for row, face in enumerate(faces) if face is not None]
        cut = crops([images[row] for row in rows], [f.box for f in faces if f], margin=self.margin, size=FACE_SIZE)
        labels: list[str | None] = [None] * len(faces)
        probabilities = torch.zeros(len(faces), len(self.classes))
        confidence = torch.zeros(len(faces))
        if rows:
            named = see(self.people, cut)
            probabilities[rows], confidence[rows] = named.probabilities, named.confidence
            for row, label in zip(rows, named.labels, strict=True):
                labels[row] = label
        has_face = np.array([face is not None for face in faces], dtype=bool)
        return FacesSeen(JudgeResult(labels, confidence, probabilities), has_face)

    def judge(self, images: Images) -> JudgeResult:
        """Say who each picture shows; None for a stranger and for no face, which :meth:`look` tells apart.

        Raises:
            JudgeError: If a part fails on a picture.
        """
        return self.look(images).seen

    def _largest(self, things: list[Detection]) -> Detection | None:
        faces = [t for t in things if t.label in self.face_classes and t.score >= self.threshold and min(t.box[2:]) > 0]
        return max(faces, key=lambda face: face.box[2] * face.box[3], default=None)
