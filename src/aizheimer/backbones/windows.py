"""Where a prompt's words are on the token axis: one window for each text encoder that has a place on it.

Stable Diffusion 1, 2 and XL have one window: SDXL's two encoders split a prompt alike and lie side by side in the
channels. Stable Diffusion 3 has CLIP's window and then T5's. Flux has T5's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aizheimer._typing import TokenColumns, TokenIds
from aizheimer.backbones import tokens
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.concepts.mentions import mention
from aizheimer.errors import ConceptError


@dataclass(frozen=True, kw_only=True)
class TextWindow:
    """One text encoder's part of the token axis.

    Args:
        pipe: The pipeline, for its textual inversions.
        tokenizer: The encoder's tokenizer.
        start: Where its part begins.
        length: Tokens in it, with the special ones and padding.
        first: Special tokens before the words: 1 for CLIP's start of text, 0 for T5.
        causal: Whether a token has read those before it only, as in CLIP.
    """

    pipe: Any
    tokenizer: Any
    start: int = 0
    length: int
    first: int = 1
    causal: bool = True

    @property
    def room(self) -> int:
        """Tokens of words that fit: all but the start (if any) and the end of text."""
        return self.length - self.first - 1

    def texts(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts as the tokenizer gets them: textual inversions spelt out."""
        convert = getattr(self.pipe, "maybe_convert_prompt", None)
        texts = as_list(prompts) if convert is None else convert(as_list(prompts), self.tokenizer)
        return [texts] if isinstance(texts, str) else texts

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return padded and truncated token ids (prompts, length), as the pipeline makes them."""
        options = {"padding": "max_length", "max_length": self.length, "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(self.texts(prompts), **options).input_ids

    def words(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return token ids without start, end, padding and truncation."""
        return self.tokenizer(self.texts(prompts), add_special_tokens=False, verbose=False).input_ids

    def ends(self, ids: TokenIds) -> list[int]:
        """Return where each text ends, counted in the window: its first end-of-text token."""
        # Some pad with end-of-text and others with another token: the first one is where the text ends.
        return (ids.cpu() == self.tokenizer.eos_token_id).int().argmax(dim=1).tolist()

    def columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the tokens of each prompt that carry the concept, (prompts, length) on the CPU.

        It is looked for as it is written and as the prompt spells it: T5's tokens know capital letters.

        Raises:
            ConceptError: The concept is empty, not in a prompt, or cut off by the window.
        """
        (concept_ids,) = self.words([concept])
        if not concept_ids:
            raise ConceptError(f"concept {concept!r} has no tokens; name what the model must forget.")
        spelt, pattern = {concept: tuple(concept_ids)}, mention(concept)
        marked = torch.zeros(len(prompts), self.length, dtype=torch.bool)
        for row, (prompt, prompt_ids) in enumerate(zip(prompts, self.words(prompts), strict=True)):
            here = [concept, *pattern.findall(prompt)]
            if new := [text for text in dict.fromkeys(here) if text not in spelt]:
                spelt |= dict(zip(new, map(tuple, self.words(new)), strict=True))
            starts = {ids: tokens.occurrences(prompt_ids, ids) for ids in dict.fromkeys(spelt[text] for text in here)}
            if not any(start + len(ids) <= self.room for ids, found in starts.items() for start in found):
                raise self._not_found(prompt, prompt_ids, concept, concept_ids, cut=any(starts.values()))
            for ids, found in starts.items():
                if found:
                    marked[row, self._positions(found, len(ids), length=len(prompt_ids), policy=policy)] = True
        return marked

    def _positions(self, starts: Sequence[int], size: int, *, length: int, policy: TokenPolicy) -> list[int]:
        # `columns` counts a start-of-text token; a window without one is one token longer to it.
        shift = 1 - self.first
        found = tokens.columns(starts, size, length=length, max_tokens=self.length + shift, policy=policy)
        return [place - shift for place in found]

    def _not_found(
        self, prompt: str, prompt_ids: list[int], concept: str, concept_ids: list[int], *, cut: bool
    ) -> ConceptError:
        wanted, there = (" ".join(self.tokenizer.convert_ids_to_tokens(ids)) for ids in (concept_ids, prompt_ids))
        if cut:
            return ConceptError(
                f"concept {concept!r} (tokens: {wanted}) is cut off: prompt {prompt!r} has {len(prompt_ids)} tokens, "
                f"the model reads {self.room}; shorten the prompt."
            )
        return ConceptError(
            f"concept {concept!r} (tokens: {wanted}) is not in prompt {prompt!r} (tokens: {there}); "
            "write it in the prompt as it is in the concept."
        )


def token_columns(
    windows: Sequence[TextWindow], prompts: Sequence[str], concept: str, *, policy: TokenPolicy
) -> TokenColumns:
    """Mark the concept's tokens in every window, (prompts, tokens) on the CPU.

    Raises:
        ConceptError: The concept is empty, not in a prompt, or cut off by a window.
        SelectorError: Unknown policy.
    """
    tokens.check_policy(policy)
    return torch.cat([window.columns(prompts, concept, policy=policy) for window in windows], dim=1)


def mean_word_rows(windows: Sequence[TextWindow], words: Sequence[str], rows: Tensor) -> Tensor:
    """Return the mean row (words, dim) of each text: over its tokens and the end of text, in the first window.

    Start-of-text and padding, the same for all texts, are left out.

    Args:
        windows: The token axis.
        words: The texts.
        rows: (words, tokens, dim) of the whole axis.
    """
    window = windows[0]
    rows = rows[:, window.start : window.start + window.length]
    lengths = torch.tensor([min(len(ids), window.room) for ids in window.words(words)], device=rows.device)
    position = torch.arange(rows.shape[1], device=rows.device)
    inside = (position >= window.first) & (position <= lengths[:, None] + window.first)
    return (rows * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)


def as_list(prompts: Sequence[str]) -> list[str]:
    """Return prompts as a list.

    Raises:
        ConceptError: If there are none.
    """
    if isinstance(prompts, str):
        raise TypeError(f"prompts: got the text {prompts!r}, wanted a sequence of texts")
    if not prompts:
        raise ConceptError("prompts: got none, wanted at least one.")
    return list(prompts)
