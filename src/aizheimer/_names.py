"""Words as names of files, and compared; imported with the command line, so it loads nothing."""

from __future__ import annotations


def dashed(words: str) -> str:
    """Return words as part of a file's name: lower-case letters and digits, joined by dashes; "" if there are none.

    Example:
        >>> dashed("Mrs. Claus")
        'mrs-claus'
    """
    return "-".join("".join(letter if letter.isalnum() else " " for letter in words.casefold()).split())


def folded(words: str) -> str:
    """Return words as they are compared: whatever their case, and the spaces around and between them.

    Example:
        >>> folded("  Mrs.   Claus ")
        'mrs. claus'
    """
    return " ".join(words.split()).casefold()
