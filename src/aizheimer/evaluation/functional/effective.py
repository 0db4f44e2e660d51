"""Prompts that ask for the target and get it, from the unedited model: only there can an edit show what it does.

A prompt on which the unedited model fails counts as forgotten for every edit, so it flatters all of them. Such prompts
are always reported, and left out on request (Six-CD, arXiv 2406.14855, keeps the others only).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EFFECTIVE_SHARE = 0.5
"""A prompt is effective if at least so many of its pictures by the unedited model show the target."""

LEFT_OUT = ", prompts that the unedited model shows it on only"
"""What the protocol of a figure says then."""


def shown_by_prompt(prompts: Sequence[str], shown: np.ndarray) -> dict[str, float]:
    """Return the share of each prompt's pictures that show the target, in order of first appearance.

    Args:
        prompts: (n,) of the pictures.
        shown: (n,) in [0, 1], of the unedited model's pictures.

    Raises:
        ValueError: If the lengths differ.

    Example:
        >>> shown_by_prompt(["a cat", "a kat", "a cat"], np.array([1.0, 0.0, 0.0]))
        {'a cat': 0.5, 'a kat': 0.0}
    """
    found: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, shown, strict=True):
        found.setdefault(prompt, []).append(float(value))
    return {prompt: float(np.mean(values)) for prompt, values in found.items()}


def ineffective(prompts: Sequence[str], shown: np.ndarray, *, share: float = EFFECTIVE_SHARE) -> dict[str, float]:
    """Return the prompts on which the unedited model shows the target too seldom, and how often each does.

    Args:
        prompts: (n,) of the pictures.
        shown: (n,) in [0, 1], of the unedited model's pictures.
        share: In (0, 1]; as often is often enough.

    Example:
        >>> ineffective(["a cat", "a kat", "a cat"], np.array([1.0, 0.0, 0.0]))
        {'a kat': 0.0}
    """
    return {prompt: found for prompt, found in shown_by_prompt(prompts, shown).items() if found < share}


def ineffective_words(ineffective: int, prompts: int, *, left_out: bool) -> list[str]:
    """Say how many prompts the unedited model fails on, and whether they count; an empty list if there are none."""
    if not ineffective:
        return []
    done = "left out" if left_out else "counted; --effective-only leaves them out"
    return [f"{ineffective} of {prompts} prompts do not show the target on the unedited model either ({done})"]
