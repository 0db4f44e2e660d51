"""Text encoders read with gradients: into their weights, and into vectors in the place of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer._typing import TextEmbeddings, TokenIds, WordIds
from aizheimer.backbones.windows import TextWindow
from aizheimer.errors import InputError

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone, NetworkName, Part


@dataclass(frozen=True, kw_only=True, eq=False)
class TextReader:
    """A CLIP text encoder, and what of it the denoiser is told.

    Args:
        network: Its name.
        encoder: The text encoder.
        window: How prompts become its token ids: its own tokenizer, with its own padding.
        skipped: Blocks at its end that rows do not come through: 0 in Stable Diffusion 1 and 2, where they come through
            all and the last norm; 1 in Stable Diffusion XL, where they are what the last but one says, before any norm.
        pooled: Whether the denoiser reads its projected vector of the whole prompt too, which comes through all blocks.
    """

    network: NetworkName
    encoder: Any
    window: TextWindow
    skipped: int = 0
    pooled: bool = False

    @property
    def width(self) -> int:
        """Entries of a word's vector at its entrance."""
        return self.encoder.get_input_embeddings().embedding_dim

    def word_vectors(self, ids: Tensor) -> Tensor:
        """Return the vectors (..., width) that stand for token ids (...), before positions are added."""
        return self.encoder.get_input_embeddings()(ids.to(self.encoder.device))

    def read(
        self, ids: TokenIds, *, vectors: Tensor | None = None
    ) -> tuple[TextEmbeddings, Float[Tensor, "batch width"] | None]:
        """Return the rows, and the pooled vector if it is read, with gradients.

        Args:
            ids: Padded token ids; where ``vectors`` are given they only say where the text ends.
            vectors: (batch, tokens, width) to read in the place of the ids' own.
        """
        if self.encoder.device.type != "meta":  # of an encoder whose weights are elsewhere its own hook moves them
            ids = ids.to(self.encoder.device)
        with _read_instead(self.encoder, vectors):
            if self.skipped == 0:
                return self.encoder(ids)[0], None
            told = self.encoder(ids, output_hidden_states=True)
        return told.hidden_states[-1 - self.skipped], told[0] if self.pooled else None


def text_part(backbone: Backbone) -> Part:
    """Return what is trained where text encoders are: the one there is, or all together."""
    return "text_encoders" if len(backbone.text_readers) > 1 else "text_encoder"


@contextmanager
def _read_instead(encoder: Any, vectors: Tensor | None) -> Iterator[None]:
    """Have an encoder read vectors in the place of words for the length of a ``with`` block."""
    if vectors is None:
        yield
        return
    # CLIP takes no vectors from outside: what its table of words returns is exchanged.
    handle = encoder.get_input_embeddings().register_forward_hook(lambda *_: vectors)
    try:
        yield
    finally:
        handle.remove()


def ids_of(readers: Sequence[TextReader], prompts: Sequence[str]) -> WordIds:
    """Return token ids (prompts, tokens) of one encoder; of several (prompts, tokens, encoders), each one's own."""
    ids = [reader.window.tokenize(prompts) for reader in readers]
    return ids[0] if len(ids) == 1 else torch.stack(ids, dim=-1)


def vectors_of(readers: Sequence[TextReader], ids: Tensor) -> Tensor:
    """Return the word vectors (..., dim) of token ids; of several encoders (..., encoders) they lie side by side."""
    if len(readers) == 1:
        return readers[0].word_vectors(ids)
    check_encoders(readers, ids)
    return torch.cat([reader.word_vectors(ids[..., i]) for i, reader in enumerate(readers)], dim=-1)


def check_encoders(readers: Sequence[TextReader], ids: Tensor) -> None:
    """Refuse token ids that do not say which encoder they are for.

    Raises:
        InputError: The last axis does not have a place for each.
    """
    if ids.shape[-1] != len(readers):
        raise InputError(
            f"token ids: got the shape {tuple(ids.shape)}, wanted (..., {len(readers)}), each text encoder's own; make "
            "them with Backbone.token_ids."
        )
