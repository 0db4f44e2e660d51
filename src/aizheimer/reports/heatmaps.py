"""Where the model looks when it reads the target's word, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from aizheimer.evaluation.generate import PromptJob, draw_batch, image_size, sampling
from aizheimer.modules.attention import attention_probe, heatmap
from aizheimer.reports.pictures import enlarge

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone
    from aizheimer.evaluation.evaluate import AppliedEdit

STEPS = 20


@dataclass(frozen=True)
class HeatmapPair:
    """One prompt's picture and the attention to the target in it, before and after.

    Attributes:
        prompt: What was asked for.
        seed: Of the initial noise.
        original: uint8 (height, width, 3).
        edited: Same shape.
        original_heat: float (height, width) in [0, 1]: the share of attention given to the target.
        edited_heat: Same shape; both have the same scale.
    """

    prompt: str
    seed: int
    original: np.ndarray
    edited: np.ndarray
    original_heat: np.ndarray
    edited_heat: np.ndarray

    @property
    def peak(self) -> float:
        """The largest attention in either map: both are painted against it, so that they can be compared."""
        return float(max(self.original_heat.max(), self.edited_heat.max()))


def target_heatmaps(
    backbone: Backbone, prompt: str, concept: str, seed: int, *, steps: int = STEPS, guidance: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture and read, half-way through, how much attention each place gives to the target.

    See `word_heatmaps`, of which this is the case of one word.

    Returns:
        The map, float32 (height, width) in [0, 1], and the picture, uint8 (height, width, 3).

    Raises:
        ConceptError: If the prompt does not name the concept.
    """
    maps, picture = word_heatmaps(backbone, prompt, words=[concept], seed=seed, steps=steps, guidance=guidance)
    return maps[0], picture


def word_heatmaps(
    backbone: Backbone,
    prompt: str,
    *,
    words: Sequence[str],
    seed: int,
    steps: int = STEPS,
    guidance: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture and read, half-way through, how much attention each place gives to each of some words.

    The value at a place is the attention probability summed over all the word's tokens, averaged over heads and
    over all cross-attention layers, each enlarged to the picture: a share, so maps of two models have one scale.

    Args:
        backbone: The model as it should draw.
        prompt: Must name all the words.
        words: What to look for; the picture is drawn once for each, in one batch.
        seed: Of the initial noise.
        steps: DDIM steps; attention is read after step ``steps // 2``.
        guidance: Guidance scale; None takes the world's own. Only the prompt's half of the batch is read.

    Returns:
        The maps, float32 (words, height, width) in [0, 1], and the picture, uint8 (height, width, 3).

    Raises:
        ConceptError: If the prompt does not name a word.
    """
    pipe = backbone.pipe
    scale = backbone.world.guidance if guidance is None else guidance
    columns = torch.cat([backbone.token_columns([prompt], word, policy="concept") for word in words])
    height, width = image_size(pipe)
    read: dict[str, Any] = {}

    def at_step_end(_pipe: Any, index: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if index == steps // 2:
            probe.check()
            maps = [heatmap(attention, height, width) for attention in probe.maps.values()]
            read["heat"] = sum(maps) / len(maps)
        return values

    layers = list(backbone.attention_modules())
    guided = scale > 1  # the pipeline doubles the batch only then
    # An edit that acts while pictures are drawn may predict for its own words as well.
    probing = attention_probe(backbone.denoiser, layers, columns, guidance=guided, skip_others=True)
    jobs = [PromptJob(prompt, seed)] * len(words)
    with sampling(pipe), probing as probe:
        pictures = draw_batch(pipe, jobs, steps=steps, guidance=scale, callback_on_step_end=at_step_end)
    return read["heat"].float().cpu().clamp(0, 1).numpy(), pictures[0]


def heatmap_pair(
    backbone: Backbone,
    edit: AppliedEdit,
    *,
    prompt: str,
    concept: str,
    seed: int,
    steps: int = STEPS,
    guidance: float | None = None,
) -> HeatmapPair:
    """Read the attention to the target in the same prompt and seed without and with the edit."""
    options: dict[str, Any] = {"steps": steps, "guidance": guidance}
    before, original = target_heatmaps(backbone, prompt, concept, seed, **options)
    applied: AbstractContextManager[Any] = edit.applied(backbone.pipe)
    with applied:
        after, edited = target_heatmaps(backbone, prompt, concept, seed, **options)
    return HeatmapPair(prompt, seed, original, edited, before, after)


def overlay(image: np.ndarray, heat: np.ndarray, *, peak: float, edge: int = 256) -> Image.Image:
    """Paint a heat-map over a faded picture: dark and clear is nothing, bright is ``peak``.

    Args:
        image: uint8 (height, width, 3).
        heat: (height, width), 0 or more.
        peak: The value that is painted brightest; 0 or less paints nothing.
        edge: Width of the result in pixels, about.
    """
    import matplotlib

    share = np.clip(heat / peak, 0.0, 1.0) if peak > 0 else np.zeros_like(heat)
    base = enlarge(image, edge=edge)
    smooth = Image.fromarray((share * 255).round().astype(np.uint8)).resize(base.size, Image.Resampling.BICUBIC)
    share = np.asarray(smooth, dtype=np.float64) / 255
    colour = matplotlib.colormaps["inferno"](share)[..., :3]
    grey = np.asarray(base.convert("L"), dtype=np.float64)[..., None] / 255
    alpha = (0.55 + 0.35 * share)[..., None]
    return Image.fromarray(((alpha * colour + (1 - alpha) * grey) * 255).round().astype(np.uint8))
