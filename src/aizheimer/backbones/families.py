"""The families of models there are: how each is called, and by which pipeline it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Family: TypeAlias = Literal["sd", "sdxl", "sd3", "flux"]
"""Short names of model families."""


@dataclass(frozen=True, kw_only=True)
class FamilyInfo:
    """One family of models.

    Args:
        title: What users call it.
        pipeline: The diffusers class of its pipelines.
        backbone: ``"module:class"`` of its backbone.
        components: Folders that a pipeline must have.
    """

    title: str
    pipeline: str
    backbone: str
    components: tuple[str, ...]


FAMILIES: dict[Family, FamilyInfo] = {
    "sd": FamilyInfo(
        title="Stable Diffusion 1 and 2",
        pipeline="StableDiffusionPipeline",
        backbone="aizheimer.backbones.stable_diffusion:StableDiffusionBackbone",
        components=("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    ),
    "sdxl": FamilyInfo(
        title="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        backbone="aizheimer.backbones.sdxl:SDXLBackbone",
        components=("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
    ),
    "sd3": FamilyInfo(
        title="Stable Diffusion 3 and 3.5",
        pipeline="StableDiffusion3Pipeline",
        backbone="aizheimer.backbones.sd3:SD3Backbone",
        components=(
            *("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
        ),
    ),
    "flux": FamilyInfo(
        title="Flux.1",
        pipeline="FluxPipeline",
        backbone="aizheimer.backbones.flux:FluxBackbone",
        components=(
            *("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
        ),
    ),
}
"""Every family by its short name."""


@dataclass(frozen=True, kw_only=True)
class KindInfo:
    """One kind of model that methods are tested on.

    Args:
        family: Its family, which is all that code asks for: what works on it and what does not is the family's.
        title: What users call it.
    """

    family: Family
    title: str


SECOND_KINDS: dict[str, KindInfo] = {
    "sd2-v": KindInfo(family="sd", title="Stable Diffusion 2 with v-prediction"),
}
"""Models that a family's code treats as its first, and that differ from it in what a method may trip over."""


def kinds() -> dict[str, KindInfo]:
    """Return every kind of model by its short name: each family by its own, and its further kinds behind it.

    Example:
        >>> list(kinds())
        ['sd', 'sd2-v', 'sdxl', 'sd3', 'flux']
    """
    found: dict[str, KindInfo] = {}
    for family, info in FAMILIES.items():
        found[family] = KindInfo(family=family, title=info.title)
        found |= {name: kind for name, kind in SECOND_KINDS.items() if kind.family == family}
    return found


def family_of(pipeline_class: str) -> Family | None:
    """Return the family whose pipelines are of a class, or None.

    Example:
        >>> family_of("StableDiffusionXLPipeline")
        'sdxl'
    """
    return next((name for name, info in FAMILIES.items() if info.pipeline == pipeline_class), None)
