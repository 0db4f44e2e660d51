"""Words that mean whatever their vectors say: lent to a model's tokenizer for a while, and gone afterwards."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AddedToken

from aizheimer._typing import TokenIds
from aizheimer.backbones.base import Backbone
from aizheimer.errors import InputError


@dataclass(eq=False)
class FreeWords:
    """Words that mean whatever their vectors say, for the length of `free_words`.

    Args:
        names: How each is written in a prompt, with spaces around it.
        vectors: (words, dim) what the text encoder reads for each; may be exchanged at any time, and gradients flow
            into it.
    """

    names: tuple[str, ...]
    vectors: Float[Tensor, "words dim"]

    @property
    def text(self) -> str:
        """All of them one after another, as they are written in a prompt."""
        return " ".join(self.names)


@contextlib.contextmanager
def free_words(backbone: Backbone, vectors: Float[Tensor, "words dim"]) -> Iterator[FreeWords]:
    """Lend a model new words; afterwards its tokenizer is the old one.

    The pipeline itself tokenizes, encodes and draws prompts that hold them, so that whatever an edit does on the way is
    done to them too; and the search reads them on the same way. No table of vectors is made larger: ids past its end
    are read out of ``vectors``.

    Args:
        backbone: The model.
        vectors: What the words mean at first, one row a word.

    Yields:
        The words.

    Raises:
        InputError: If the tokenizer has words of these names already.
    """
    pipe, before = backbone.pipe, backbone.pipe.tokenizer
    tokenizer, words = copy.deepcopy(before), FreeWords(tuple(f"<free{i}>" for i in range(len(vectors))), vectors)
    first = len(tokenizer)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in words.names])
    if tokenizer.convert_tokens_to_ids(list(words.names)) != list(range(first, first + len(words.names))):
        raise InputError(f"the tokenizer knows a word of {words.text}; take added tokens of these names off the model")
    with _read_past(backbone, words, first=first):
        # Set as an attribute, it would make the pipeline write itself a new configuration, which would stay.
        vars(pipe)["tokenizer"] = tokenizer
        try:
            yield words
        finally:
            vars(pipe)["tokenizer"] = before


@contextlib.contextmanager
def _read_past(backbone: Backbone, words: FreeWords, *, first: int) -> Iterator[None]:
    """Answer ids from ``first`` on out of the words' vectors."""
    table = backbone.pipe.text_encoder.get_input_embeddings()
    asked: list[Tensor] = []

    def before(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        asked.append(args[0])
        return (args[0].masked_fill(args[0] >= first, 0), *args[1:])

    def after(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        del module, args
        ids = asked.pop()
        chosen = words.vectors.to(output)[(ids - first).clamp(min=0)]
        return torch.where((ids >= first)[..., None], chosen, output)

    handles = [table.register_forward_pre_hook(before), table.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def vocabulary(backbone: Backbone) -> Int[Tensor, " words"]:
    """Return the ids a discrete search chooses from: all of the tokenizer's but start, end, padding and unknown."""
    tokenizer = backbone.pipe.tokenizer
    special = set(tokenizer.all_special_ids)
    return torch.tensor([i for i in range(len(tokenizer)) if i not in special])


def text_ids(backbone: Backbone, text: str) -> list[int]:
    """Return a text's token ids, without start, end and padding."""
    return list(backbone.pipe.tokenizer(text, add_special_tokens=False, verbose=False).input_ids) if text else []


def padded(backbone: Backbone, bodies: Sequence[Sequence[int]]) -> TokenIds:
    """Put start, end and padding around token ids, as the tokenizer does around a text's.

    Args:
        backbone: The model, for its tokenizer.
        bodies: Token ids of each prompt, without start and end.

    Returns:
        (prompts, tokens) ids.

    Raises:
        InputError: If one of them is longer than the model reads.
    """
    tokenizer, window = backbone.pipe.tokenizer, backbone.max_tokens - 2
    if (longest := max(map(len, bodies))) > window:
        raise InputError(f"got a prompt of {longest} tokens, the model reads {window}; search for fewer tokens")
    rows = [[tokenizer.bos_token_id, *body, tokenizer.eos_token_id] for body in bodies]
    return torch.tensor([row + [tokenizer.pad_token_id] * (window + 2 - len(row)) for row in rows])


def decoded(backbone: Backbone, tokens: Sequence[int]) -> str:
    """Return what tokens are spelt like."""
    # A copied tokenizer forgets that its mark of a word's end stands for a space.
    return backbone.pipe.tokenizer.decode(list(tokens)).replace("</w>", " ").strip()


def nearest(vectors: Float[Tensor, "n dim"], table: Float[Tensor, "words dim"]) -> Int[Tensor, " n"]:
    """Return for each vector the row of the table in the most similar direction (cosine).

    Example:
        >>> nearest(torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 9.0], [1.0, 0.0]]))
        tensor([1])
    """
    return (F.normalize(vectors, dim=-1) @ F.normalize(table, dim=-1).T).argmax(dim=-1)


def nearest_words(backbone: Backbone, vectors: Float[Tensor, "words dim"]) -> list[str]:
    """Return for each vector the known word in the most similar direction."""
    ids = vocabulary(backbone)
    table = backbone.word_vectors(ids).detach().float()
    chosen = nearest(vectors.to(table), table)
    return [decoded(backbone, [token]) for token in ids[chosen.cpu()].tolist()]
