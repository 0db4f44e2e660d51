"""Pictures in, vectors out: the named networks that distances between sets of pictures are measured in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer.detectors.base import Images, read_json
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.weights import weights_hash

WANTED = "a transformers CLIP or image classifier folder"


class FeatureExtractor(Protocol):
    """Turns pictures into vectors. Numbers of two extractors must not be compared, so each has a name and a hash."""

    @property
    def name(self) -> str:
        """Short name for tables and provenance."""
        ...

    @property
    def dim(self) -> int:
        """Numbers in a picture's vector."""
        ...

    @property
    def weights(self) -> str:
        """Hash of the weights and of how pictures are fed in."""
        ...

    def features(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return one vector a picture, float32, not normalised."""
        ...

    def maps(self, images: Images) -> list[Float[Tensor, "batch positions channels"]]:
        """Return what each layer sees at each place of each picture, float32."""
        ...


@dataclass(frozen=True)
class CLIPFeatures:
    """The image tower of a CLIP: its projected vectors, and its layers' tokens without the class token.

    Args:
        clip: Whose tower it is.

    References:
        Jayasumana et al., Rethinking FID, arXiv 2401.09603 (CMMD uses the projected vectors of ViT-L/14 at 336 px).
    """

    clip: CLIPScore

    @property
    def name(self) -> str:
        """Short name for tables and provenance."""
        return f"{self.clip.name.removesuffix(' score')} image tower"

    @property
    def dim(self) -> int:
        """Numbers in a picture's vector."""
        return int(self.clip.model.config.projection_dim)

    @property
    def weights(self) -> str:
        """Hash of the tower, its projection and the normalisation."""
        return self._weights

    @cached_property
    def _weights(self) -> str:
        model = self.clip.model
        parts = {"vision": model.vision_model, "projection": model.visual_projection}
        tensors = {f"{part}.{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}
        return weights_hash(tensors, self.clip.mean, self.clip.std, model.config.vision_config.image_size)

    @torch.no_grad()
    def features(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return the projected vectors, not normalised."""
        model = self.clip.model
        pooled = [model.vision_model(pixel_values=chunk).pooler_output for chunk in self._chunks(images)]
        return torch.cat([model.visual_projection(vectors).float().cpu() for vectors in pooled])

    @torch.no_grad()
    def maps(self, images: Images) -> list[Float[Tensor, "batch positions channels"]]:
        """Return the tokens after each layer, without the class token."""
        tower = self.clip.model.vision_model
        seen = [tower(pixel_values=chunk, output_hidden_states=True).hidden_states for chunk in self._chunks(images)]
        return [torch.cat(layer).float().cpu()[:, 1:] for layer in zip(*(chunk[1:] for chunk in seen), strict=True)]

    def _chunks(self, images: Images) -> Sequence[Tensor]:
        return self.clip.prepare(images).split(self.clip.batch_size)


@dataclass(frozen=True)
class ClassifierFeatures:
    """The layers below the last one of any image classifier: an Inception, a ResNet, a ViT.

    Args:
        judge: Whose network it is.
    """

    judge: ImageJudge

    @property
    def name(self) -> str:
        """Short name for tables and provenance."""
        return f"{self.judge.name} features"

    @property
    def dim(self) -> int:
        """Numbers in a picture's vector, counted on a blank picture."""
        return self._dim

    @property
    def weights(self) -> str:
        """Hash of the whole classifier and of how pictures go in."""
        return self._weights

    @cached_property
    def _dim(self) -> int:
        edge = self.judge.image_size
        return self.features(torch.zeros(1, 3, edge, edge)).shape[1]

    @cached_property
    def _weights(self) -> str:
        judge = self.judge
        return weights_hash(judge.model.state_dict(), judge.image_size, judge.resize, judge.mean, judge.std)

    @torch.no_grad()
    def features(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return the pooled vectors that the last layer reads, or the class token's where nothing pools."""
        outputs = [self._body(pixel_values=chunk) for chunk in self._chunks(images)]
        return torch.cat([_pooled(output).flatten(1).float().cpu() for output in outputs])

    @torch.no_grad()
    def maps(self, images: Images) -> list[Float[Tensor, "batch positions channels"]]:
        """Return the layers' maps, each place of a picture a row."""
        seen = [
            self._body(pixel_values=chunk, output_hidden_states=True).hidden_states for chunk in self._chunks(images)
        ]
        layers = [torch.cat(layer).float().cpu() for layer in zip(*(chunk[1:] for chunk in seen), strict=True)]
        return [layer.flatten(2).transpose(1, 2) if layer.ndim == 4 else layer[:, 1:] for layer in layers]

    @property
    def _body(self) -> Any:
        """The classifier without its last layer."""
        return self.judge.model.base_model

    def _chunks(self, images: Images) -> Sequence[Tensor]:
        return self.judge.prepare(images).split(self.judge.batch_size)


def _pooled(output: Any) -> Tensor:
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if pooled is None else pooled


def load_extractor(folder: str | Path) -> FeatureExtractor:
    """Read the network in a folder; nothing is ever downloaded.

    Args:
        folder: A CLIP, or any image classifier, as transformers saves them.

    Raises:
        ModelError: If the folder is missing, unreadable, or holds neither.
    """
    config = read_json(Path(folder) / "config.json", wanted=WANTED)
    if config.get("model_type") == "clip":
        return CLIPFeatures(CLIPScore.load(folder))
    return ClassifierFeatures(ImageJudge.load(folder))
