"""A judge for worlds without a trained one: CLIP chooses among captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer.detectors.base import Images, JudgeResult, decide
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.weights import weights_hash
from aizheimer.errors import InputError


@dataclass(frozen=True)
class ZeroShotJudge:
    """Names what a picture shows: the caption nearest to it in CLIP space.

    p(c | x) = softmax_c(s * cos(x, template(c))) with CLIP's own logit scale s. It knows any words but is less sure
    than a trained judge; classes that mean nearly the same split the probability between them.

    Attributes:
        clip: The scorer that embeds both sides.
        classes: The words to choose among.
        template: Caption with ``{label}``.
        reject_threshold: Below this probability the answer is "none of these".

    References:
        Radford et al., CLIP, arXiv 2103.00020, section 3.1.
    """

    clip: CLIPScore
    classes: tuple[str, ...]
    template: str = "a photo of {label}"
    reject_threshold: float = 0.0

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise InputError(f"zero-shot judge: got the classes {self.classes}; give at least two to choose among")

    @classmethod
    def load(cls, folder: str | Path, classes: Sequence[str], *, template: str = "a photo of {label}") -> ZeroShotJudge:
        """Read the CLIP in ``folder`` and let it choose among ``classes``."""
        return cls(clip=CLIPScore.load(folder), classes=tuple(classes), template=template)

    @property
    def name(self) -> str:
        """Short name for tables and provenance."""
        return f"{self.clip.name}, zero-shot"

    @property
    def weights(self) -> str:
        """Hash of the CLIP, of the caption and of when it rejects."""
        return weights_hash({}, self.clip.weights, self.template, self.reject_threshold)

    @cached_property
    def captions(self) -> Float[Tensor, "classes dim"]:
        """Unit vectors of the captions, computed once."""
        return self.clip.embed_texts([self.template.format(label=label) for label in self.classes])

    def judge(self, images: Images) -> JudgeResult:
        """Say which caption fits each picture best."""
        scale = float(self.clip.model.logit_scale.exp())
        logits = scale * self.clip.embed_images(images) @ self.captions.T
        return decide(torch.softmax(logits, dim=-1), self.classes, reject_threshold=self.reject_threshold)
