"""Find a concept's words in a text."""

from __future__ import annotations

import re


def mention(*words: str) -> re.Pattern[str]:
    """Return the pattern that finds words in a text: as whole words, whatever their case and the space between them.

    Args:
        *words: One word or more, not empty; of several such names, what finds any of them.

    Example:
        >>> bool(mention("old man").search("An Old  Man!")), bool(mention("man").search("a mane"))
        (True, False)
    """
    inner = "|".join(r"\s+".join(re.escape(word) for word in name.split()) for name in words)
    return re.compile(rf"(?<!\w)(?:{inner})(?!\w)", re.IGNORECASE)
