"""A judge made of an image classifier with a calibrated confidence and a right to say "none of these"."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aizheimer.detectors.base import Images, JudgeResult, decide, quiet_loading, read_json, to_pixels
from aizheimer.detectors.weights import weights_hash
from aizheimer.errors import ModelError

WANTED = "a transformers image classifier folder (config.json with id2label, model.safetensors)"


@dataclass(frozen=True)
class ImageJudge:
    """Names what a picture shows with a ``transformers`` image classifier.

    The probabilities are softmax(logits / T) with the temperature T fitted on held-out pictures, so that 0.8 is right
    about 8 times in 10. A picture whose best class stays under ``reject_threshold`` is "none of these".

    Attributes:
        name: For tables and provenance.
        classes: Class names in the order of the logits.
        model: The classifier; pictures x in [0, 1] go in as (x - mean) / std.
        image_size: Edge in pixels that the classifier takes.
        resize: Edge that pictures are resized to before the centre of ``image_size`` is cut out; None is the same edge.
        mean: Per channel.
        std: Per channel.
        temperature: T > 0.
        reject_threshold: In [0, 1]; 0 never rejects.

    Example:
        >>> judge = ImageJudge.load("judges/object")  # doctest: +SKIP
        >>> judge.judge(images).labels  # doctest: +SKIP
        ['cat', None]
    """

    name: str
    classes: tuple[str, ...]
    model: nn.Module
    image_size: int = 64
    temperature: float = 1.0
    reject_threshold: float = 0.0
    batch_size: int = 64
    resize: int | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @classmethod
    def load(cls, folder: str | Path) -> ImageJudge:
        """Read a judge from disk: any image classifier of the Hugging Face hub that was saved as safetensors.

        How pictures go in is read from preprocessor_config.json (size, centre crop, mean, std); resizing is always
        bicubic. ``temperature`` and ``reject_threshold``, which only our own judges have, are read from
        config.json itself: transformers drops "temperature" from any config, because it takes it for a setting of text
        generation.

        Raises:
            ModelError: If the folder is missing, unreadable, or not an image classifier.
        """
        from transformers import AutoModelForImageClassification

        folder = Path(folder)
        config = read_json(folder / "config.json", wanted=WANTED)
        try:
            with quiet_loading():
                model = AutoModelForImageClassification.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
                )
        except Exception as error:  # transformers and safetensors raise many kinds; all mean the folder is unusable
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{folder}: cannot be loaded as a judge ({reason}); give {WANTED}") from error
        temperature, threshold = float(config.get("temperature", 1.0)), float(config.get("reject_threshold", 0.0))
        if temperature <= 0 or not 0 <= threshold <= 1:
            raise ModelError(
                f"{folder}: got temperature {temperature} and reject_threshold {threshold}; "
                "wanted a temperature above 0 and a threshold from 0 to 1"
            )
        names = model.config.id2label
        return cls(
            name=f"{folder.name} classifier",
            classes=tuple(names[i] for i in range(len(names))),
            model=model.eval().requires_grad_(False),
            temperature=temperature,
            reject_threshold=threshold,
            **_preprocessing(folder, default_size=config.get("image_size", 64)),
        )

    @cached_property
    def weights(self) -> str:
        """Hash of the classifier, of how pictures go in and of when it rejects; counted once, when it is asked for."""
        fed = self.image_size, self.resize, self.mean, self.std
        return weights_hash(self.model.state_dict(), *fed, self.temperature, self.reject_threshold)

    def prepare(self, images: Images) -> Float[Tensor, "batch 3 height width"]:
        """Return pictures as the classifier takes them: resized, cut, and normalised once."""
        pixels = to_pixels(images, size=self.resize or self.image_size)
        edge = (pixels.shape[-1] - self.image_size) // 2
        pixels = pixels[..., edge : edge + self.image_size, edge : edge + self.image_size]
        parameter = next(self.model.parameters())
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (((pixels + 1) / 2 - mean) / std).to(parameter.device, parameter.dtype)

    @torch.no_grad()
    def judge(self, images: Images) -> JudgeResult:
        """Say what each picture shows.

        Args:
            images: uint8 (batch, height, width, 3), float (batch, 3, height, width) in [-1, 1], or PIL images.

        Raises:
            JudgeError: If a probability is not a number.
        """
        logits = [
            self.model(pixel_values=chunk).logits.float().cpu()
            for chunk in self.prepare(images).split(self.batch_size)
            if len(chunk)
        ]
        stacked = torch.cat(logits) if logits else torch.empty(0, len(self.classes))
        probabilities = torch.softmax(stacked / self.temperature, dim=-1)
        return decide(probabilities, self.classes, reject_threshold=self.reject_threshold)


def _preprocessing(folder: Path, *, default_size: Any) -> dict[str, Any]:
    """Read how pictures go in; without preprocessor_config.json as (x - 0.5) / 0.5 at the size config.json names.

    Raises:
        ModelError: If the file is there but makes no sense.
    """
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return {"image_size": _edge(default_size, path)}
    config = read_json(path, wanted=WANTED)
    size = _edge(config.get("size", default_size), path)
    resize = size
    if config.get("do_center_crop") and "crop_size" in config:
        size = _edge(config["crop_size"], path)
    elif config.get("crop_pct") and size < 384:  # ConvNeXt's rule, which ResNet folders follow
        resize = int(size / config["crop_pct"])
    if resize < size:
        raise ModelError(f"{path}: got size {resize} and crop_size {size}; wanted a crop that is not larger")
    fields: dict[str, Any] = {"image_size": size, "resize": resize}
    for name, missing in (("mean", 0.0), ("std", 1.0)):
        values = config.get(f"image_{name}", (0.5,) * 3) if config.get("do_normalize", True) else (missing,) * 3
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise ModelError(f"{path}: got image_{name} {values}; wanted three numbers")
        fields[name] = tuple(float(value) for value in values)
    return fields


def _edge(size: Any, path: Path) -> int:
    """Return the edge in pixels of what a config calls a size: a number, or a table."""
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"{path}: got a picture size of {size!r}; wanted a number of pixels")
    return size
