"""Find a concept's tokens in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from aizheimer.errors import SelectorError, did_you_mean

TokenPolicy = Literal["concept", "concept+eot", "concept+eot+padding", "last"]
"""Which tokens of a prompt carry the concept.

``concept``
    Every sub-token of every occurrence.
``concept+eot``
    And the first end-of-text token, which sums up the sentence.
``concept+eot+padding``
    And everything after it. The text encoder is causal, so these have read the concept too. In
    Stable Diffusion 1 the padding *is* end-of-text: there "every end-of-text token" would mean
    this policy, in Stable Diffusion 2 it would mean ``concept+eot``.
``last``
    Only the last sub-token of every occurrence, as the AIzheimer notebook did.
"""


def occurrences(prompt_ids: Sequence[int], concept_ids: Sequence[int]) -> list[int]:
    """Return where ``concept_ids`` starts in ``prompt_ids``; overlapping occurrences count.

    Example:
        >>> occurrences([7, 1, 2, 9, 1, 2], [1, 2])
        [1, 4]
    """
    size = len(concept_ids)
    if size == 0:
        return []
    wanted = list(concept_ids)
    return [start for start in range(len(prompt_ids) - size + 1) if list(prompt_ids[start : start + size]) == wanted]


def columns(starts: Sequence[int], size: int, *, length: int, max_tokens: int, policy: TokenPolicy) -> list[int]:
    """Return the token positions, counted with the start-of-text token, that a policy marks.

    Of an occurrence that runs over the end of the window the sub-tokens inside are marked.

    Args:
        starts: Where the concept starts in the prompt, counted without start-of-text.
        size: Its number of sub-tokens.
        length: The prompt's number of tokens before truncation, without start- and end-of-text.
        max_tokens: The window's size, with start- and end-of-text.
        policy: Which tokens to mark.

    Raises:
        SelectorError: Unknown policy.
    """
    check_policy(policy)
    window = max_tokens - 2
    end_of_text = 1 + min(length, window)
    first = size - 1 if policy == "last" else 0
    marked = {1 + i for start in starts for i in range(start + first, start + size) if i < window}
    if policy == "concept+eot":
        marked.add(end_of_text)
    elif policy == "concept+eot+padding":
        marked.update(range(end_of_text, max_tokens))
    return sorted(marked)


def check_policy(policy: str) -> None:
    """Raise SelectorError unless ``policy`` is a :data:`TokenPolicy`."""
    names = get_args(TokenPolicy)
    if policy not in names:
        raise SelectorError(
            f"token policy: got {policy!r}, wanted one of {', '.join(names)}.{did_you_mean(policy, names)}"
        )
