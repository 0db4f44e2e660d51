"""How well a picture fits its words: the cosine between CLIP's two towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aizheimer.detectors.base import Images, quiet_loading, read_json, to_pixels
from aizheimer.detectors.weights import weights_hash
from aizheimer.errors import InputError, ModelError

WANTED = "a transformers CLIP folder (config.json, model.safetensors, tokenizer files)"


@dataclass(frozen=True)
class CLIPScore:
    """Scores pictures against words: 100 * cos(image, text), no clipping at zero.

    Numbers of different CLIP models must not be compared with each other.

    Attributes:
        name: For tables and provenance.
        model: A ``CLIPModel``.
        tokenizer: Its tokenizer.
        mean: Per channel, of pictures in [0, 1].
        std: Per channel.

    References:
        Hessel et al., CLIPScore, arXiv 2104.08718 (there with a factor of 2.5 and clipped at zero).
    """

    name: str
    model: Any
    tokenizer: Any
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    batch_size: int = 64

    @classmethod
    def load(cls, folder: str | Path) -> CLIPScore:
        """Read a CLIP from disk; without preprocessor_config.json pictures go in as (x - 0.5) / 0.5.

        Raises:
            ModelError: If the folder is missing, unreadable, or not a CLIP.
        """
        from transformers import CLIPModel, CLIPTokenizer

        folder = Path(folder)
        config = read_json(folder / "config.json", wanted=WANTED)
        if config.get("model_type") != "clip":
            raise ModelError(f"{folder}: got a model of type {config.get('model_type')!r}; give {WANTED}")
        try:
            with quiet_loading():
                model = CLIPModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
                )
                tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers and safetensors raise many kinds; all mean the folder is unusable
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{folder}: cannot be loaded as a CLIP ({reason}); give {WANTED}") from error
        mean, std = _normalisation(folder)
        return cls(
            name=f"{folder.name} score",
            model=model.eval().requires_grad_(False),
            tokenizer=tokenizer,
            mean=mean,
            std=std,
        )

    @cached_property
    def weights(self) -> str:
        """Hash of both towers and of how pictures go in; counted once, when it is asked for."""
        return weights_hash(self.model.state_dict(), self.mean, self.std)

    def prepare(self, images: Images) -> Float[Tensor, "batch 3 height width"]:
        """Return pictures as the image tower takes them: resized, and normalised once."""
        pixels = to_pixels(images, size=self.model.config.vision_config.image_size)
        parameter = next(self.model.parameters())
        scaled = ((pixels + 1) / 2 - _channels(self.mean)) / _channels(self.std)
        return scaled.to(parameter.device, parameter.dtype)

    @torch.no_grad()
    def embed_images(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return unit vectors of the pictures."""
        vectors = [
            _vector(self.model.get_image_features(pixel_values=chunk))
            for chunk in self.prepare(images).split(self.batch_size)
        ]
        return F.normalize(torch.cat(vectors).float().cpu(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Return unit vectors of the texts, truncated to the model's window."""
        window = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        device = next(self.model.parameters()).device
        vectors = []
        for start in range(0, len(texts), self.batch_size):
            tokens = self.tokenizer(
                list(texts[start : start + self.batch_size]),
                padding="max_length",
                max_length=window,
                truncation=True,
                return_tensors="pt",
            ).to(device)
            vectors.append(
                _vector(self.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"]))
            )
        return F.normalize(torch.cat(vectors).float().cpu(), dim=-1)

    def score(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Return 100 * cosine of each picture with its own prompt.

        Raises:
            InputError: If there are not as many pictures as prompts, or none at all.
        """
        if len(images) != len(prompts) or not prompts:
            raise InputError(
                f"CLIP score: got {len(images)} images and {len(prompts)} prompts; give one prompt an image"
            )
        unique = list(dict.fromkeys(prompts))
        rows = torch.tensor([unique.index(prompt) for prompt in prompts])
        return 100 * (self.embed_images(images) * self.embed_texts(unique)[rows]).sum(dim=-1)


def _normalisation(folder: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    config = read_json(path, wanted=WANTED)
    mean, std = (tuple(config.get(key, (0.5, 0.5, 0.5))) for key in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3:
        raise ModelError(f"{path}: got image_mean {mean} and image_std {std}; wanted three numbers each")
    return mean, std


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def _vector(output: Any) -> Tensor:
    """Take the projected vector: transformers 4 returns it, transformers 5 wraps it."""
    return output if isinstance(output, Tensor) else output.pooler_output
