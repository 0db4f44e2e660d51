"""Say to a pipeline what an attack found: tokens that no text gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aizheimer.attacks.base import Subject
from aizheimer.backbones.base import Backbone
from aizheimer.data.free_words import decoded, free_words, text_ids
from aizheimer.evaluation.generate import PromptJob


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt that begins with exact tokens.

    Args:
        tokens: Token ids, without start and end.
        text: What follows them, as text; may be empty.
    """

    tokens: tuple[int, ...]
    text: str = ""


def spelled(backbone: Backbone, prompt: TokenPrompt) -> str:
    """Return the prompt as text, for people: decoded tokens, then its text."""
    return f"{decoded(backbone, prompt.tokens)} {prompt.text}".strip()


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
