"""Groups of people in a vocabulary, by words: women and men of the same trade, the same person in five skin tones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Groups: TypeAlias = dict[str, dict[str, str]]
"""Group to member to label: ``{"men": {"teacher": "man teacher"}, "women": {"teacher": "woman teacher"}}``."""

COUNTERPARTS = {
    "man": "woman", "men": "women", "boy": "girl", "father": "mother", "husband": "wife", "groom": "bride",
    "king": "queen", "prince": "princess", "actor": "actress", "waiter": "waitress", "monk": "nun", "wizard": "witch",
    "merman": "mermaid", "grandfather": "grandmother", "businessman": "businesswoman",
}  # fmt: skip
"""English words that name the same for a man and for a woman."""

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
"""Unicode's five skin tones (the Fitzpatrick scale with its first two joined), as CLDR names them."""

OLD = frozenset({"old", "older", "elderly", "grandfather", "grandmother"})
YOUNG = frozenset({"baby", "boy", "girl", "child", "kid", "young", "toddler"})
"""English words that say how old somebody is."""

_TONE = re.compile(rf"^(?P<who>.+?)[:,]? (?P<tone>{'|'.join(sorted(TONES, key=len, reverse=True))}) skin tone$")


def people_pairs(labels: Sequence[str]) -> Groups:
    """Return the men and the women of whom a vocabulary has both, each pair under one name.

    Args:
        labels: The vocabulary.

    Returns:
        ``{"men": ..., "women": ...}`` with the same members; empty if there is no pair.

    Example:
        >>> people_pairs(["man cook", "woman cook", "pregnant woman", "cat"])
        {'men': {'man cook': 'man cook'}, 'women': {'man cook': 'woman cook'}}
    """
    by_key = {label.casefold(): label for label in labels}
    pairs = {}
    for label in labels:
        other = " ".join(COUNTERPARTS.get(word, word) for word in label.casefold().split())
        if other != label.casefold() and other in by_key:
            pairs[label] = by_key[other]
    return {"men": {name: name for name in pairs}, "women": dict(pairs)} if pairs else {}


def skin_tones(labels: Sequence[str]) -> Groups:
    """Return the people whom a vocabulary has in several skin tones: tone to person to label.

    Only tones and persons that make a full table are kept, so that tones are compared on the same persons.

    Example:
        >>> skin_tones(["man: light skin tone", "man: dark skin tone", "boy: dark skin tone"])
        {'light skin tone': {'man': 'man: light skin tone'}, 'dark skin tone': {'man': 'man: dark skin tone'}}
    """
    found: Groups = {}
    for tone in TONES:
        matches = [(label, match) for label in labels if (match := _TONE.match(label)) and match["tone"] == tone]
        if matches:
            found[f"{tone} skin tone"] = {match["who"]: label for label, match in matches}
    if len(found) < 2:
        return {}
    everywhere = set.intersection(*(set(members) for members in found.values()))
    if not everywhere:
        return {}
    return {
        tone: {who: label for who, label in members.items() if who in everywhere} for tone, members in found.items()
    }


def ages(labels: Sequence[str]) -> Groups:
    """Return the old and the young of a vocabulary, by words; empty if it lacks either.

    Give people only: a "baby chick" is no person.

    Example:
        >>> ages(["old man", "boy", "man"])
        {'old': {'old man': 'old man'}, 'young': {'boy': 'boy'}}
    """
    found: Groups = {"old": {}, "young": {}}
    for label in labels:
        words = set(re.findall(r"[a-z]+", label.casefold()))
        if bool(words & OLD) != bool(words & YOUNG):
            found["old" if words & OLD else "young"][label] = label
    return found if all(found.values()) else {}


def without(groups: Mapping[str, Mapping[str, str]], label: str) -> Groups:
    """Return the groups without the members whose label this is, in any group: a pair that lost one side is no pair.

    Args:
        groups: See `Groups`.
        label: Mostly the target: that it is hurt is no damage.
    """
    gone = {who for members in groups.values() for who, own in members.items() if own.casefold() == label.casefold()}
    left = {name: {who: own for who, own in members.items() if who not in gone} for name, members in groups.items()}
    return {name: members for name, members in left.items() if members}
