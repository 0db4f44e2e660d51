"""Distances that carry what they were computed with, and refuse to stand beside one that was computed otherwise."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aizheimer.detectors.features import FeatureExtractor
from aizheimer.errors import InputError
from aizheimer.evaluation.functional.bootstrap import bootstrap_interval
from aizheimer.evaluation.functional.distances import (
    cmmd,
    frechet_distance,
    kernel_distance,
    least_pictures,
    perceptual_distance,
)
from aizheimer.evaluation.results import Distance
from aizheimer.evaluation.settings import EvaluationSettings

SET_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "fid": frechet_distance,
    "kid": kernel_distance,
    "cmmd": cmmd,
}
"""Of whole sets of pictures."""

HIGHER_IS_BETTER = frozenset({"clip-score"})
"""Metrics of which more is better; of all others less is."""

MUST_AGREE = {
    "metric": "another metric",
    "extractor": "another feature extractor",
    "dim": "vectors of another length",
    "weights": "other weights, or pictures fed in otherwise",
    "n": "another number of pictures",
    "n_reference": "another number of reference pictures",
    "reference": "another reference",
    "protocol": "another protocol",
    "implementation": "another implementation",
}
"""What two numbers must share to be compared, and what it is called where they do not."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two numbers may be compared; true or false by itself.

    Args:
        reason: Why not; empty if they may.
    """

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


def comparable(first: Distance, second: Distance) -> Comparison:
    """Say whether two numbers may stand in one table.

    Returns:
        True, or false with the reason in words.

    Example:
        >>> fid = Distance(metric="fid", value=9, original=2, n=200, n_reference=200, reference="r", extractor="clip",
        ...                dim=128, weights="w", implementation="i", protocol="p")
        >>> comparable(fid, fid.model_copy(update={"n": 500})).reason
        'fid: another number of pictures (200 and 500)'
    """
    reason, _, _ = _differing(first.metric, [("", first.model_dump()), ("", second.model_dump())], MUST_AGREE)
    return Comparison(reason)


def check_comparable(
    metric: str, computed: Iterable[tuple[str, Mapping[str, Any]]], *, fields: Mapping[str, str] = MUST_AGREE
) -> None:
    """Refuse to put numbers of one metric into one table, or into one mean, unless they were computed alike.

    Args:
        metric: What the numbers are, for the message.
        computed: What each row is called, and what its number was computed with: `MUST_AGREE` has the keys. What a row
            does not say, as files of before it was written, is not held against it.
        fields: The keys that must agree here, and what each is called where it does not.

    Raises:
        InputError: If two of them were not computed alike; the message names both and the difference.

    Example:
        >>> check_comparable("fid", [("esd", {"n": 200}), ("uce", {"n": None}), ("sld", {"n": 200})])
    """
    reason, first, second = _differing(metric, computed, fields)
    if reason:
        raise InputError(f"{first} and {second} cannot stand in one table: {reason}; measure both alike")


def _differing(
    metric: str, computed: Iterable[tuple[str, Mapping[str, Any]]], fields: Mapping[str, str]
) -> tuple[str, str, str]:
    """Return the first difference in words, and the two rows that have it; empty strings if there is none."""
    stated: dict[str, tuple[str, Any]] = {}
    for name, own in computed:
        for field, words in fields.items():
            if (value := own.get(field)) is None:
                continue
            other, there = stated.setdefault(field, (name, value))
            if there != value:
                return f"{metric}: {words} ({there} and {value})", other, name
    return "", "", ""


def check_size(metric: str, *, n: int, extractor: FeatureExtractor) -> None:
    """Refuse, before anything is drawn, a distance of too few pictures.

    Raises:
        InputError: If it needs more.
    """
    if metric in SET_DISTANCES and n < (least := least_pictures(metric, dim=extractor.dim)):
        raise InputError(
            f"{metric}: got images={n}; {extractor.name} gives {extractor.dim} numbers a picture, which needs {least}. "
            f"Draw more, or leave {metric} out of metrics"
        )


def set_distance(
    metric: str,
    *,
    edited: np.ndarray,
    original: np.ndarray,
    reference: np.ndarray,
    extractor: FeatureExtractor,
    protocol: str,
) -> Distance:
    """Measure how far the pictures of both models are from a reference.

    Args:
        metric: "fid", "kid" or "cmmd".
        edited: uint8 (n, height, width, 3) with the edit.
        original: The same of the unedited model.
        reference: uint8 (n', height, width, 3).
        extractor: The network.
        protocol: What the reference is, in words.

    Raises:
        InputError: If there are too few pictures.
    """
    vectors = [extractor.features(pictures).numpy() for pictures in (edited, original, reference)]
    measure = SET_DISTANCES[metric]
    return Distance(
        metric=metric,
        value=measure(vectors[0], vectors[2]),
        original=measure(vectors[1], vectors[2]),
        n=len(edited),
        n_reference=len(reference),
        reference=pictures_hash(reference),
        implementation=_implementation(metric),
        protocol=protocol,
        **_named(extractor),
    )


def perceptual(
    *, edited: np.ndarray, original: np.ndarray, extractor: FeatureExtractor, settings: EvaluationSettings
) -> Distance:
    """Measure how far each picture moved from the unedited model's at the same prompt and seed; the mean.

    Args:
        edited: uint8 (n, height, width, 3) with the edit.
        original: Its counterparts, row by row.
        extractor: The network.
        settings: Of the bootstrap.
    """
    maps = [[layer.numpy() for layer in extractor.maps(pictures)] for pictures in (edited, original)]
    values = perceptual_distance(*maps)
    return mean_distance(
        "perceptual", values, np.zeros_like(values), reference=pictures_hash(original), settings=settings,
        protocol="to the unedited model's picture at the same prompt and seed", **_named(extractor),
    )  # fmt: skip


def mean_distance(
    metric: str, edited: np.ndarray, original: np.ndarray, *, settings: EvaluationSettings, **fields: Any
) -> Distance:
    """Average paired values (n,) of both models, with intervals.

    Args:
        metric: Its name.
        edited: With the edit.
        original: Of the unedited model.
        settings: Of the bootstrap.
        **fields: The rest of the `Distance`.
    """
    draws: dict[str, Any] = {"seed": settings.seed, "samples": settings.bootstrap, "level": settings.level}
    return Distance(
        metric=metric,
        value=float(edited.mean()),
        original=float(original.mean()),
        interval=bootstrap_interval(edited, **draws),
        change_interval=bootstrap_interval(edited - original, **draws),
        n=len(edited),
        n_reference=len(edited),
        implementation=_implementation(metric),
        **fields,
    )


def pictures_hash(pictures: np.ndarray) -> str:
    """Return 16 hexadecimal digits that name pictures in their order."""
    pictures = np.ascontiguousarray(pictures)
    digest = hashlib.sha256(f"{pictures.dtype} {pictures.shape}".encode())
    digest.update(pictures.data)
    return digest.hexdigest()[:16]


def prompts_hash(prompts: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that name prompts in their order."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]


def _named(extractor: FeatureExtractor) -> dict[str, Any]:
    return {"extractor": extractor.name, "dim": extractor.dim, "weights": extractor.weights}


def _implementation(metric: str) -> str:
    """Name the code that computes a metric; another major version of torchmetrics counts as another one."""
    if metric in ("fid", "kid"):
        return f"torchmetrics {importlib.metadata.version('torchmetrics').split('.')[0]}"
    return "aizheimer"
