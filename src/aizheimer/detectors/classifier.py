"""A judge made of an image classifier with a calibrated confidence and a right to say "none of these"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from aizheimer.detectors.base import Images, JudgeResult, decide, quiet_loading, read_json, to_pixels
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
        model: The classifier; pictures go in as (x - 0.5) / 0.5.
        image_size: Edge in pixels that the classifier takes; other sizes are resized.
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

    @classmethod
    def load(cls, folder: str | Path) -> ImageJudge:
        """Read a judge from disk.

        ``temperature``, ``reject_threshold`` and ``image_size`` are read from config.json itself: transformers drops
        "temperature" from any config, because it takes it for a setting of text generation.

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
            image_size=int(config.get("image_size", 64)),
            temperature=temperature,
            reject_threshold=threshold,
        )

    @torch.no_grad()
    def judge(self, images: Images) -> JudgeResult:
        """Say what each picture shows.

        Args:
            images: uint8 (batch, height, width, 3), float (batch, 3, height, width) in [-1, 1], or PIL images.
        """
        pixels = to_pixels(images, size=self.image_size)
        parameter = next(self.model.parameters())
        logits = [
            self.model(pixel_values=chunk.to(parameter.device, parameter.dtype)).logits.float().cpu()
            for chunk in pixels.split(self.batch_size)
            if len(chunk)
        ]
        stacked = torch.cat(logits) if logits else torch.empty(0, len(self.classes))
        probabilities = torch.softmax(stacked / self.temperature, dim=-1)
        return decide(probabilities, self.classes, reject_threshold=self.reject_threshold)
