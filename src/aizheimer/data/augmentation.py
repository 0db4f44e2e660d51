r"""Show an object smaller or larger than it was drawn, and say so: the augmentation of Concept Ablation.

A picture of side S is flipped with probability 1/2. With probability 2/3 it is shrunk to a side s between S/3 and S and
pasted somewhere on grey, and otherwise enlarged 1.2 to 1.4 times and cut out. Where something was pasted on grey the
loss counts inside the pasted square only, less a margin of one cell of the latents, so that nobody learns the grey. A
prompt for a picture of s < 0.6 S begins with words for small, one for s > S with words for large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.data.cache import TensorCache, content_key, module_hash, tensor_hash

PREFIXES = ("", "a far away ", "very small ", "zoomed in ", "close up ")
"""What prompts begin with; `Augmented.prefix` counts in it."""
SMALL, LARGE = (1, 2), (3, 4)
_PICTURES = 4
"""Pictures that are decoded and encoded at a time."""


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """Pictures that were made smaller or larger. All tensors are on the CPU.

    Args:
        latents: (copies x pictures, channels, height, width) clean latents, all pictures once, then again.
        masks: (copies x pictures, 1, height, width) one where the loss counts, else zero.
        prefix: (copies x pictures,) numbers in `PREFIXES`.
    """

    latents: Float[Tensor, "n channels height width"]
    masks: Float[Tensor, "n 1 height width"]
    prefix: Int[Tensor, " n"]


def placed(
    picture: Float[Tensor, "3 size size"], *, side: int, top: int, left: int, cells: int
) -> tuple[Float[Tensor, "3 size size"], Float[Tensor, "1 cells cells"]]:
    """Return a picture at another size, and where the loss counts.

    Args:
        picture: In [-1, 1].
        side: What it is scaled to.
        top: First row: where it is pasted if it became smaller, else where it is cut out.
        left: First column.
        cells: Side of the latents.

    Returns:
        A picture of the size of ``picture``, grey around one that became smaller; and the mask: one in the cells that
        are a whole cell inside the pasted square, and everywhere if it did not become smaller.
    """
    size = picture.shape[-1]
    scaled = F.interpolate(picture[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]
    if side > size:
        return scaled[:, top : top + size, left : left + size], torch.ones(1, cells, cells)
    canvas, mask, cell = torch.zeros_like(picture), torch.zeros(1, cells, cells), size // cells
    canvas[:, top : top + side, left : left + side] = scaled
    rows, columns = (slice(first // cell + 1, (first + side) // cell - 1) for first in (top, left))
    mask[:, rows, columns] = 1
    return canvas, mask


def augmented(
    picture: Float[Tensor, "3 size size"], *, cells: int, generator: torch.Generator
) -> tuple[Float[Tensor, "3 size size"], Float[Tensor, "1 cells cells"], int]:
    """Return a picture at a random size, where the loss counts, and which of `PREFIXES` says so.

    No picture becomes so small that no cell of its mask is left: three cells are the least. That is less than a third
    of the size, the authors' least, for every model with nine cells or more.

    Args:
        picture: In [-1, 1].
        cells: Side of the latents.
        generator: Chooses flip, size, place and words.

    References:
        Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, arXiv:2303.13516, in its published code for
        diffusers. That for CompVis leaves pictures between 0.6 and 1 of the size as they were.
    """
    size = picture.shape[-1]
    if _below(2, generator) == 1:
        picture = picture.flip(-1)
    if _below(3, generator) < 2:
        least = min(max(size // 3, 3 * (size // cells)), size)
        side = least + _below(size + 1 - least, generator)
    else:
        low, high = int(1.2 * size), int(1.4 * size)
        side = low + _below(max(high - low, 1), generator)
    top, left = (_below(abs(size - side) + 1, generator) for _ in range(2))
    word = _below(2, generator)
    prefix = SMALL[word] if side < 0.6 * size else LARGE[word] if side > size else 0
    return *placed(picture, side=side, top=top, left=left, cells=cells), prefix


@torch.no_grad()
def augmented_latents(
    backbone: Backbone,
    latents: Float[Tensor, "pictures channels height width"],
    *,
    copies: int,
    seed: int,
    cache_dir: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Augmented:
    """Return pictures at random sizes, encoded again.

    Args:
        backbone: Whose autoencoder turns latents into pictures and back.
        latents: Clean latents of the pictures.
        copies: How often each picture is made.
        seed: Fixes all choices.
        cache_dir: Where the result is cached by content; None for no cache.
        progress: Told ("augmentation", done, total).
    """

    def compute() -> dict[str, Tensor]:
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        total = copies * len(latents)
        for copy in range(copies):
            for start in range(0, len(latents), _PICTURES):
                if progress is not None:
                    progress("augmentation", copy * len(latents) + start, total)
                generator = generator_for(seed, "augmentation", copy, start)
                parts.append(_encoded(backbone, latents[start : start + _PICTURES], generator=generator))
        found = [torch.cat(column) for column in zip(*parts, strict=True)]
        return dict(zip(("latents", "masks", "prefix"), found, strict=True))

    key = ""
    if cache_dir is not None:
        key = content_key(
            kind="augmented",
            torch=torch.__version__,
            place=f"{backbone.device.type} {backbone.dtype}",
            latents=tensor_hash(latents),
            autoencoder=module_hash(backbone.components["vae"]),
            copies=copies,
            seed=seed,
        )
    return Augmented(**TensorCache(cache_dir).get(key, compute))


def _encoded(backbone: Backbone, latents: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    pictures = backbone.decode_latents(latents.to(backbone.device, backbone.dtype)).float().cpu()
    made = [augmented(picture, cells=latents.shape[-1], generator=generator) for picture in pictures]
    encoded = backbone.encode_images(torch.stack([picture for picture, _, _ in made])).to(latents).cpu()
    prefix = torch.tensor([prefix for _, _, prefix in made])
    return encoded, torch.stack([mask for _, mask, _ in made]), prefix


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
