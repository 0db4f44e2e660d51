"""What to say where text encoders cannot be trained or attacked word by word."""

from __future__ import annotations

from aizheimer.backbones.families import FAMILIES, Family
from aizheimer.errors import ModelError


def no_text_training(family: Family) -> ModelError:
    """Return the error of a family whose denoiser reads T5 beside CLIP."""
    return ModelError(
        f"{FAMILIES[family].title} reads several text encoders, of which token ids and word vectors of CLIP tell only "
        "a part; wanted Stable Diffusion 1, 2 or XL, or a method that edits the denoiser."
    )
