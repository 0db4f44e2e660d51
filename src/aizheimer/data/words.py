"""Prompts as the denoiser reads them: encoded once, or anew at every step by text encoders that learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning, Conditions
from aizheimer.errors import ConceptError


class Embeddings(Protocol):
    """Encoded prompts by their number; `Conditioning` is one, and a tensor (prompts, tokens, dim)."""

    def __getitem__(self, index: Tensor, /) -> Conditions:
        """Return the prompts of these numbers."""
        ...


@dataclass(frozen=True, kw_only=True)
class LiveEmbeddings:
    """Prompts that the text encoders read whenever they are asked for, with gradients into their weights.

    It takes the place of a tensor of embeddings wherever text encoders are what learns. Each prompt of a batch is read
    once, however often it occurs. A prompt of which the denoiser is told zeros has zeros here too, unless words are put
    before it.

    Args:
        backbone: The model, whatever its text encoders are at the time.
        ids: (prompts, tokens) token ids, of several encoders (prompts, tokens, encoders), as the backbone makes them.
        silent: (prompts,) of which the denoiser is told zeros; see `Backbone.silent`.
        prefix: (k, dim) free word vectors that are read before every prompt, or None; see `prefixed`. Of several
            encoders each has its own, side by side.

    Example:
        >>> live = LiveEmbeddings.of(backbone, ["a cat", "a dog"])  # doctest: +SKIP
        >>> live[torch.tensor([1, 1, 0])].shape  # doctest: +SKIP
        torch.Size([3, 77, 768])
    """

    backbone: Backbone
    ids: Int[Tensor, "prompts tokens *encoders"]
    silent: Bool[Tensor, " prompts"]
    prefix: Float[Tensor, "k dim"] | None = None

    @classmethod
    def of(cls, backbone: Backbone, prompts: Sequence[str]) -> LiveEmbeddings:
        """Return the prompts in their order."""
        return cls(backbone=backbone, ids=backbone.token_ids(prompts).cpu(), silent=backbone.silent(prompts))

    def __getitem__(self, index: Tensor, /) -> Conditions:
        """Return what the text encoders say of the prompts of these numbers."""
        wanted, place = index.cpu().unique(return_inverse=True)
        ids, vectors = self.ids[wanted], None
        if self.prefix is not None:
            vectors = prefixed(self.backbone.word_vectors(ids), self.prefix)
            # Any id does but end-of-text, by which an encoder finds where the text ends.
            ids = prefixed(ids, ids[0, :1].expand(len(self.prefix), *ids.shape[2:]))
        told = self.backbone.read_tokens(ids, vectors=vectors)
        if self.prefix is None and isinstance(told, Conditioning):
            told = told.silenced(self.silent[wanted])
        return told[place.to(self.backbone.device)]

    def vectors_of(self, words: Int[Tensor, " k"]) -> Float[Tensor, "k dim"]:
        """Return the vectors of words that every encoder's tokenizer has under the same number, as CLIP's all do."""
        encoders = self.ids.shape[2:]
        return self.backbone.word_vectors(words.reshape(-1, *[1] * len(encoders)).expand(-1, *encoders))

    def behind(self, prefix: Float[Tensor, "k dim"]) -> LiveEmbeddings:
        """Return the same prompts with free word vectors before them."""
        return replace(self, prefix=prefix)


def prefixed(sequence: Tensor, inserted: Tensor) -> Tensor:
    """Insert after begin-of-text, and drop as much at the end.

    Args:
        sequence: (batch, tokens, ...) token ids, word vectors or encoded rows.
        inserted: (k, ...) what is inserted, the same for all.

    Returns:
        (batch, tokens, ...).

    Example:
        >>> prefixed(torch.tensor([[1, 5, 6, 9, 9]]), torch.tensor([7]))
        tensor([[1, 7, 5, 6, 9]])
    """
    kept = sequence.shape[1] - len(inserted)
    shared = inserted.unsqueeze(0).expand(len(sequence), *inserted.shape)
    return torch.cat([sequence[:, :1], shared.to(sequence.dtype), sequence[:, 1:kept]], dim=1)


def check_room(backbone: Backbone, prompts: Sequence[str], *, tokens: int) -> None:
    """Refuse a prefix that would push the end of a prompt out of the window.

    Args:
        backbone: The model, for its tokenizer.
        prompts: What is read behind the prefix.
        tokens: Word vectors in the prefix.

    Raises:
        ConceptError: If one of the prompts is too long.
    """
    ends = backbone.windows[0].ends(backbone.tokenize(prompts))
    longest = max(range(len(ends)), key=ends.__getitem__)
    room = backbone.max_tokens - 1 - ends[longest]
    if tokens > room:
        raise ConceptError(
            f"{tokens} free tokens do not fit before '{prompts[longest]}' ({ends[longest] - 1} tokens of the "
            f"{backbone.max_tokens - 2} the model reads); take at most {room}, or shorter prompts."
        )
