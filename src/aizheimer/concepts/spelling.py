"""The same word written otherwise: slips of the keyboard, letters that look alike, words taken apart.

Everything is deterministic: the same word always gives the same spellings, in the same order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The rows of a QWERTY keyboard; a neighbour is the next key of the row, or the one before at its end."""

LOOKALIKES = str.maketrans(
    "aceijopsxyABCEHIJKMOPSTXY",
    "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443"
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u0423",
)
"""Latin letters to the Cyrillic ones that are drawn alike. Lower-case b, h, k, m and t are not."""

ZERO_WIDTH_JOINER = "\u200d"


def misspellings(text: str, *, known: Collection[str] = ()) -> list[str]:
    """Return typing errors of a name: a dropped letter, two exchanged, a neighbouring key; the three kinds in turn.

    The longest words come first and the first letter of a word stays, as in most slips; changes in the middle of a
    word come first. What is another known word is left out: "cat" with a neighbouring key must not become "car".

    Args:
        text: One word or more.
        known: Words and names that mean something else, whatever their case.

    Returns:
        Distinct texts, none of them ``text``; empty for a word too short to be misspelt.

    Example:
        >>> misspellings("santa")[:3]
        ['sata', 'satna', 'samta']
    """
    taken = {text.casefold(), *(word.casefold() for word in known)}
    found: dict[str, None] = {}
    words = text.split()
    for index in sorted(range(len(words)), key=lambda i: -len(words[i])):
        for slip in _slips(words[index]):
            candidate = " ".join([*words[:index], slip, *words[index + 1 :]])
            if candidate.casefold() not in taken and slip.casefold() not in taken:
                found[candidate] = None
    return list(found)


def _slips(word: str) -> Iterator[str]:
    """Yield the slips in one word, from its middle outwards."""
    middle = (len(word) - 1) / 2
    for i in sorted(range(1, len(word)), key=lambda i: (abs(i - middle), i)):
        if len(word) > 2:
            yield word[:i] + word[i + 1 :]
        if i + 1 < len(word):
            yield word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if (near := _neighbour(word[i])) is not None:
            yield word[:i] + near + word[i + 1 :]


def _neighbour(letter: str) -> str | None:
    """Return the key beside a letter's, in its case; None for what is on no row."""
    for row in KEYBOARD:
        place = row.find(letter.lower())
        if place >= 0:
            near = row[place + 1] if place + 1 < len(row) else row[place - 1]
            return near.upper() if letter.isupper() else near
    return None


def homoglyphs(text: str) -> list[str]:
    """Return the name with Cyrillic letters that look like its Latin ones: all of them, then one at a time.

    Returns:
        Distinct texts that read the same and are other characters; empty if no letter has a double.

    Example:
        >>> [word.isascii() for word in homoglyphs("cat")]
        [False, False, False]
        >>> len(homoglyphs("cat")[1])
        3
    """
    every = text.translate(LOOKALIKES)
    single = [text[:i] + every[i] + text[i + 1 :] for i in range(len(text)) if every[i] != text[i]]
    return list(dict.fromkeys([every, *single])) if single else []


def splits(text: str) -> list[str]:
    """Return the name taken apart: by a hyphen, a space or a zero-width joiner in its longest word, letter by letter.

    A name of several words is also written with hyphens between them, and as one word.

    Returns:
        Distinct texts, none of them ``text``; empty for a single letter.

    Example:
        >>> splits("santa claus")[0], splits("santa claus")[-2:]
        ('sa-nta claus', ['santa-claus', 'santaclaus'])
    """
    words = text.split()
    longest = max(range(len(words)), key=lambda i: len(words[i])) if words else 0
    word = words[longest] if words else ""
    if len(word) < 2:
        return []

    def rejoin(changed: str) -> str:
        return " ".join([*words[:longest], changed, *words[longest + 1 :]])

    middle = len(word) // 2
    found = [rejoin(word[:middle] + mark + word[middle:]) for mark in ("-", " ", ZERO_WIDTH_JOINER)]
    found += [rejoin(" ".join(word)), rejoin(ZERO_WIDTH_JOINER.join(word))]
    if len(words) > 1:
        found += ["-".join(words), "".join(words)]
    return [split for split in dict.fromkeys(found) if split != text]
