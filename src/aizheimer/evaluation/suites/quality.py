"""Quality: do the pictures of everything else still look as they did, and fit their words?"""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from aizheimer.data.images import read_images
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.features import CLIPFeatures, FeatureExtractor, load_extractor
from aizheimer.errors import DataError, InputError
from aizheimer.evaluation.distances import (
    SET_DISTANCES,
    check_size,
    mean_distance,
    perceptual,
    prompts_hash,
    set_distance,
)
from aizheimer.evaluation.evaluate import ImagePairs
from aizheimer.evaluation.functional.images import broken
from aizheimer.evaluation.generate import StageProgress, image_size
from aizheimer.evaluation.plan import PlannedImage, candidates, plan_images
from aizheimer.evaluation.results import Distance, Metric
from aizheimer.evaluation.suite import Scene, SuiteResult

QualityMetric = Literal["clip-score", "fid", "kid", "cmmd", "perceptual"]

REFERENCE_SEEDS = 50_000
"""Reference pictures start this far from the seeds that anything else is drawn with."""


class Quality(BaseModel):
    """Draw what was to be kept, and hold it against a reference, against its words, and against what it was.

    Every number has the unedited model's beside it, computed alike: the unedited model's distance to *its own* pictures
    of other seeds is what chance alone makes.

    Example:
        >>> Quality(metrics=("kid",), images=60).images
        60
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "quality"
    asks_judge: ClassVar[bool] = False

    metrics: tuple[QualityMetric, ...] = Field(
        default=("clip-score", "fid", "kid", "cmmd", "perceptual"), min_length=1, description="What is measured."
    )
    images: int = Field(default=256, ge=1, description="Pictures of retained concepts, of each model.")
    extractor: Path | None = Field(
        default=None, description="Folder of a CLIP or image classifier; none takes the judges' CLIP."
    )
    reference: Path | None = Field(
        default=None, description="Folder of pictures; none takes the unedited model's, from other seeds."
    )

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Draw, embed and compare.

        Raises:
            InputError: If there is no feature extractor, or there are too few pictures for a metric.
            DataError: If a file of the reference folder cannot be read: a set with holes is another set.
        """
        extractor, clip = self._networks(scene)
        for metric in self.metrics:
            check_size(metric, n=self.images, extractor=extractor)
        plan = retained(scene, self.images)
        reference, protocol = self._reference(scene, plan, progress)
        pairs = scene.pairs(plan, progress=_stage(progress, "drawing"))
        found: dict[str, Distance] = {}
        for metric in self.metrics:
            if metric in SET_DISTANCES:
                found[metric] = set_distance(
                    metric, edited=pairs.edited, original=pairs.original, reference=reference, extractor=extractor,
                    protocol=protocol,
                )  # fmt: skip
            elif metric == "perceptual":
                found[metric] = perceptual(
                    edited=pairs.edited, original=pairs.original, extractor=extractor, settings=scene.settings
                )
            elif clip is not None:
                found[metric] = _clip_score(clip, pairs, plan, scene)
        missing = [f"not measured: {metric}, for there is no CLIP" for metric in self.metrics if metric not in found]
        return SuiteResult.of(self, scene, _pixel_figures(scene, pairs), distances=found, warnings=missing)

    def _networks(self, scene: Scene) -> tuple[FeatureExtractor, CLIPScore | None]:
        """Return the named extractor, and the CLIP that scores pictures against words."""
        clip = scene.judges.clip
        if self.extractor is not None:
            extractor = load_extractor(self.extractor)
            return extractor, clip or (extractor.clip if isinstance(extractor, CLIPFeatures) else None)
        if clip is None:
            raise InputError("quality: this model brings no CLIP; give extractor=FOLDER of a CLIP or classifier")
        return CLIPFeatures(clip), clip

    def _reference(
        self, scene: Scene, plan: list[PlannedImage], progress: StageProgress | None
    ) -> tuple[np.ndarray, str]:
        """Return the pictures that sets are held against, and what they are."""
        if not any(metric in SET_DISTANCES for metric in self.metrics):
            return np.empty((0, 1, 1, 3), np.uint8), ""
        if self.reference is not None:
            size = image_size(scene.backbone.pipe)[0]
            return read_reference(self.reference, count=self.images, size=size), "to the pictures of a folder"
        again = [dataclasses.replace(image, seed=image.seed + REFERENCE_SEEDS) for image in plan]
        unedited = dataclasses.replace(scene, edit=None)
        drawn = unedited.pairs(again, progress=_stage(progress, "reference")).original
        return drawn, "to the unedited model's pictures of the same prompts from other seeds"


def retained(scene: Scene, count: int) -> list[PlannedImage]:
    """Return ``count`` prompts of retained concepts, spread over all of them: one picture each, then a second.

    Raises:
        InputError: If the world knows no other concept.
    """
    world, concept = scene.backbone.world, scene.concept
    labels = len(candidates(concept, world))
    if not labels:
        raise InputError(
            f"quality: world {world.name!r} knows nothing but {concept.target!r}; there is nothing to keep"
        )
    others = min(labels, count)
    sizes = {"neighbours": 0, "others": others, "other_images": math.ceil(count / others)}
    settings = scene.settings.model_copy(update=sizes)
    plan = [image for image in plan_images(concept, world, neighbours=[], settings=settings) if image.role == "other"]
    rounds: dict[str | None, int] = {}
    order = []
    for image in plan:
        label = image.style if concept.kind == "style" else image.object
        rounds[label] = rounds.get(label, 0) + 1
        order.append(rounds[label])
    chosen = [plan[i] for i in np.argsort(order, kind="stable")[:count]]
    if len(chosen) < count:
        raise InputError(
            f"quality: got images={count}, but this world has only {len(chosen)} retained prompts and seeds"
        )
    return chosen


def read_reference(folder: Path, *, count: int, size: int) -> np.ndarray:
    """Read the first ``count`` pictures of a folder, uint8 (count, size, size, 3).

    Raises:
        DataError: If one file of the folder cannot be read, or there are fewer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it warns of is an error here
        found = read_images(folder, size)
    if found.skipped:
        raise DataError(f"{folder}: {found.skipped[0]} cannot be read, so this is another reference; remove or mend it")
    if len(found.names) < count:
        raise DataError(f"{folder}: got {len(found.names)} pictures, wanted {count} as of the models; add some")
    pixels = found.pixels[:count].permute(0, 2, 3, 1).numpy()
    return ((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def _clip_score(clip: CLIPScore, pairs: ImagePairs, plan: list[PlannedImage], scene: Scene) -> Distance:
    prompts = [image.prompt for image in plan]
    edited, original = (clip.score(pictures, prompts).numpy() for pictures in (pairs.edited, pairs.original))
    return mean_distance(
        "clip-score", edited.astype(float), original.astype(float), settings=scene.settings,
        reference=prompts_hash(prompts), extractor=clip.name, dim=CLIPFeatures(clip).dim,
        weights=clip.weights,
        protocol="100 x cosine of each picture of a retained concept with its own prompt, not clipped at zero",
    )  # fmt: skip


def _pixel_figures(scene: Scene, pairs: ImagePairs) -> dict[str, Metric]:
    same = pairs.unchanged()
    words: dict[str, Any] = {"judge": "pixels"}
    return {
        "unchanged.retain": scene.metric(
            np.ones(len(same)),
            same,
            protocol=f"retained pictures that moved by at most {pairs.levels} of 255 levels",
            **words,
        ),
        "broken.retain": scene.metric(
            broken(pairs.original), broken(pairs.edited), protocol="retained pictures that are blank or noise", **words
        ),
    }


def _stage(progress: StageProgress | None, stage: str) -> Any:
    return None if progress is None else lambda done, total: progress(stage, done, total)
