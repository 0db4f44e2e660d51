"""Say to a pipeline what an attack found: vectors that no token has, and tokens that no text gives back."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AddedToken

from aizheimer._typing import TokenIds
from aizheimer.attacks.base import Subject
from aizheimer.backbones.base import Backbone
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import PromptJob


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
        pipe.tokenizer = tokenizer
        try:
            yield words
        finally:
            pipe.tokenizer = before


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


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt that begins with exact tokens.

    Args:
        tokens: Token ids, without start and end.
        text: What follows them, as text; may be empty.
    """

    tokens: tuple[int, ...]
    text: str = ""


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


def spelled(backbone: Backbone, prompt: TokenPrompt) -> str:
    """Return the prompt as text, for people: decoded tokens, then its text."""
    return f"{decoded(backbone, prompt.tokens)} {prompt.text}".strip()


def decoded(backbone: Backbone, tokens: Sequence[int]) -> str:
    """Return what tokens are spelt like."""
    # A copied tokenizer forgets that its mark of a word's end stands for a space.
    return backbone.pipe.tokenizer.decode(list(tokens)).replace("</w>", " ").strip()


def typeable(backbone: Backbone, prompt: TokenPrompt) -> bool:
    """Return whether somebody who types `spelled` says these tokens: many sequences are spelt like another one."""
    return text_ids(backbone, spelled(backbone, prompt)) == [*prompt.tokens, *text_ids(backbone, prompt.text)]


def draw_tokens(subject: Subject, prompts: Sequence[TokenPrompt], *, seeds: Sequence[int]) -> np.ndarray:
    """Draw pictures of exactly these tokens.

    What can be typed is; of a prompt that cannot, each token is a free word with that token's own vector, since its
    decoded text would be read as other tokens.

    Args:
        subject: The model under attack.
        prompts: One for each picture.
        seeds: Of each picture.

    Returns:
        uint8 (n, height, width, 3).
    """
    backbone = subject.backbone
    plain = {prompt: typeable(backbone, prompt) for prompt in dict.fromkeys(prompts)}
    ids = sorted({token for prompt, can in plain.items() if not can for token in prompt.tokens})
    if not ids:
        return subject.draw([PromptJob(spelled(backbone, p), s) for p, s in zip(prompts, seeds, strict=True)])
    vectors = backbone.word_vectors(torch.tensor(ids)).detach()
    with free_words(backbone, vectors) as words:
        names = dict(zip(ids, words.names, strict=True))
        texts = {
            p: spelled(backbone, p) if can else " ".join([*(names[i] for i in p.tokens), p.text]).strip()
            for p, can in plain.items()
        }
        jobs = [PromptJob(texts[p], seed) for p, seed in zip(prompts, seeds, strict=True)]
        return subject.draw(jobs, cache_dir=False)  # the cache knows a word by its name, not by its vector


def found_prompts(backbone: Backbone, prompts: Sequence[TokenPrompt]) -> list[dict[str, Any]]:
    """Return JSON values that tell of each prompt what was found: its words, their ids, and whether it can be typed."""
    return [
        {
            "prompt": spelled(backbone, prompt),
            "words": [decoded(backbone, [token]) for token in prompt.tokens],
            "tokens": list(prompt.tokens),
            "typeable": typeable(backbone, prompt),
        }
        for prompt in prompts
    ]
