"""What SAFREE reads of a prompt: each text encoder's part of the rows, and vectors that stand for whole texts there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aizheimer.errors import EditError

MASK_ID = 0
"""The token that stands in for a masked one, as in the published code."""
_TEXTS = 16
"""Texts that are read at a time where every layer's hidden states are kept: 33 of them in SDXL's second encoder."""


Vectors: TypeAlias = tuple[Float[Tensor, "texts dim"], Float[Tensor, "texts width"] | None]
"""One vector for each text in the space of rows, and one in that of the pooled vector where that is filtered too."""


@dataclass(frozen=True)
class Encoder:
    """One text encoder, and which part of the denoiser's rows is its own.

    Args:
        pipe: The pipeline.
        tokenizer: The encoder's.
        vectors: Reads token ids (texts, tokens).
        channels: Its part of every row.
        told: What the pipeline calls the prompts that it gives this encoder.
    """

    pipe: Any
    tokenizer: Any
    vectors: Callable[[Int[Tensor, "texts tokens"]], Vectors]
    channels: slice = field(default_factory=lambda: slice(None))
    told: Literal["prompt", "prompt_2"] = "prompt"

    def tokenize(self, texts: list[str]) -> Int[Tensor, "texts tokens"]:
        """Return padded ids, as the pipeline makes them."""
        spelt, size = self.pipe.maybe_convert_prompt(texts, self.tokenizer), self.tokenizer.model_max_length
        options = {"padding": "max_length", "max_length": size, "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(spelt, **options).input_ids

    def active(self, text: str) -> int:
        """Return how many tokens of a text's window are its own, begin and end included."""
        spelt = self.pipe.maybe_convert_prompt([text], self.tokenizer)
        (ids,) = self.tokenizer(spelt, add_special_tokens=False, verbose=False).input_ids
        return min(len(ids) + 2, self.tokenizer.model_max_length)

    def masked(self, text: str, count: int) -> Int[Tensor, "count tokens"]:
        """Return a text's ids with each of its first ``count`` words' tokens masked in turn."""
        variants = self.tokenize([text]).repeat(count, 1)
        variants[torch.arange(count), torch.arange(count) + 1] = MASK_ID
        return variants

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "texts tokens"]) -> Vectors:
        """Return the vectors of these texts."""
        return self.vectors(ids.to(self.pipe._execution_device))


def encoders_of(pipe: Any, *, published: bool) -> tuple[Encoder, ...]:
    """Return the text encoders whose part of the rows is filtered.

    Stable Diffusion 1 and 2 have one: its rows are the last hidden state, and its pooled output is their own row at the
    end of the text. SDXL has two, whose rows are the hidden state before the last, so that a text's vector is *that*
    state's at its end: vectors and rows are of one space there too, which the pooled outputs, a layer further on and in
    the second encoder behind a projection, are not. The pooled vector that its UNet is told is the second encoder's
    projected output; its space has vectors of its own.

    Args:
        pipe: The pipeline.
        published: On SDXL, as the authors' pipeline does it: the second encoder's part alone, by its projected pooled
            vectors, and the pooled vector stays.

    Raises:
        EditError: The published way is wanted of an encoder whose pooled vectors are not as wide as its rows.
    """
    second = getattr(pipe, "text_encoder_2", None)
    if second is None:
        return (Encoder(pipe, pipe.tokenizer, lambda ids: (pipe.text_encoder(ids)[1], None)),)
    first, theirs = slice(pipe.text_encoder.config.hidden_size), slice(pipe.text_encoder.config.hidden_size, None)
    if not published:
        return (
            Encoder(pipe, pipe.tokenizer, _at_the_end(pipe, "", pooled=False), first),
            Encoder(pipe, pipe.tokenizer_2, _at_the_end(pipe, "_2", pooled=True), theirs, told="prompt_2"),
        )
    own, projected = second.config.hidden_size, second.config.projection_dim
    if own != projected:
        raise EditError(
            f"fidelity=repository projects rows by pooled vectors, which are {projected} wide here and rows {own}; "
            "make the edit with fidelity=paper"
        )
    return (Encoder(pipe, pipe.tokenizer_2, lambda ids: (pipe.text_encoder_2(ids)[0], None), theirs, told="prompt_2"),)


def _at_the_end(pipe: Any, which: str, *, pooled: bool) -> Callable[[Tensor], Vectors]:
    """Return a reader of one of SDXL's encoders: the row before the last layer at the end of text.

    Args:
        pipe: The pipeline; its networks are looked up at every call.
        which: The ending of their names.
        pooled: Return the projected pooled vectors as well.
    """

    def batch(ids: Tensor) -> tuple[Tensor, Tensor]:
        network, tokenizer = getattr(pipe, f"text_encoder{which}"), getattr(pipe, f"tokenizer{which}")
        said = network(ids, output_hidden_states=True)
        # Some pad with end-of-text and others with another token: the first one is where the text ends.
        ends = (ids == tokenizer.eos_token_id).int().argmax(dim=1)
        return said.hidden_states[-2][torch.arange(len(ids), device=ids.device), ends], said[0]

    def vectors(ids: Tensor) -> Vectors:
        rows, outputs = zip(*(batch(some) for some in ids.split(_TEXTS)), strict=True)
        return torch.cat(rows), torch.cat(outputs) if pooled else None

    return vectors
