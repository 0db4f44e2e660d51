"""What SAFREE reads of a prompt: each text encoder's part of the rows, and vectors that stand for whole texts there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aizheimer.backbones.base import backbone_for
from aizheimer.backbones.readers import TextReader
from aizheimer.concepts.world import DEFAULT_WORLD
from aizheimer.errors import EditError

MASK_ID = 0
"""The token that stands in for a masked one, as in the published code."""
_TEXTS = 16
"""Texts that are read at a time where every layer's hidden states are kept: 33 of them in SDXL's second encoder."""


Vectors: TypeAlias = tuple[Float[Tensor, "texts dim"], Float[Tensor, "texts width"] | None]
"""One vector for each text in the space of rows, and one in that of the pooled vector where that is filtered too."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """One text encoder, and which part of the denoiser's rows is its own.

    Args:
        reader: The encoder, and how it is read.
        channels: Its part of every row.
        published: Whether its pooled vectors stand for texts in the space of rows, as in the authors' pipeline on SDXL.
    """

    reader: TextReader
    channels: slice
    published: bool = False

    @property
    def told(self) -> Literal["prompt", "prompt_2"]:
        """What the pipeline calls the prompts that it gives this encoder."""
        return "prompt_2" if self.reader.network == "text_encoder_2" else "prompt"

    def tokenize(self, texts: list[str]) -> Int[Tensor, "texts tokens"]:
        """Return padded ids, as the pipeline makes them."""
        return self.reader.window.tokenize(texts)

    def active(self, text: str) -> int:
        """Return how many tokens of a text's window are its own, begin and end included."""
        (ids,) = self.reader.window.words([text])
        return min(len(ids) + 2, self.reader.window.length)

    def masked(self, text: str, count: int) -> Int[Tensor, "count tokens"]:
        """Return a text's ids with each of its first ``count`` words' tokens masked in turn."""
        variants = self.tokenize([text]).repeat(count, 1)
        variants[torch.arange(count), torch.arange(count) + 1] = MASK_ID
        return variants

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "texts tokens"]) -> Vectors:
        """Return the vectors of these texts: their rows at the end of text, and what is pooled of them."""
        size = _TEXTS if self.reader.skipped else len(ids)
        rows, pooled = zip(*(self.reader.read(some) for some in ids.split(size)), strict=True)
        whole = torch.cat(pooled) if self.reader.pooled else None
        if self.published and whole is not None:
            return whole, None
        return torch.cat(rows)[torch.arange(len(ids)), self.reader.window.ends(ids)], whole


def encoders_of(pipe: Any, *, published: bool) -> tuple[Encoder, ...]:
    """Return the text encoders whose part of the rows is filtered.

    What stands for a text is its own row at its end. In Stable Diffusion 1 and 2 that is the pooled output; in SDXL,
    whose rows are the hidden state before the last, it is not: the pooled outputs are a layer further on and in the
    second encoder behind a projection, and vectors must be of one space with the rows. The pooled vector that SDXL's
    UNet is told is the second encoder's projected output; its space has vectors of its own.

    Args:
        pipe: The pipeline.
        published: On SDXL, as the authors' pipeline does it: the second encoder's part alone, by its projected pooled
            vectors, and the pooled vector stays.

    Raises:
        EditError: The published way is wanted of an encoder whose pooled vectors are not as wide as its rows.
    """
    found, start = [], 0
    for reader in backbone_for(pipe, world=DEFAULT_WORLD).text_readers:
        found.append(Encoder(reader=reader, channels=slice(start, start + reader.width), published=published))
        start += reader.width
    if not published or len(found) == 1:
        return tuple(found)
    config = found[-1].reader.encoder.config
    if config.hidden_size != config.projection_dim:
        raise EditError(
            f"fidelity=repository projects rows by pooled vectors, which are {config.projection_dim} wide here and "
            f"rows {config.hidden_size}; make the edit with fidelity=paper"
        )
    return (found[-1],)
