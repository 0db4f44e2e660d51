"""Ways to ask for a concept that training may never have seen, made of words alone: no language model is asked.

What was forgotten under one name may still be there under another. Each family answers for one kind of asking: the bare
name, the world's templates, synonyms, a description, slips of the keyboard, letters that look alike, names taken apart,
other languages, a longer scene. The negation asks for the contrary and is counted the other way round.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention
from aizheimer.concepts.spelling import homoglyphs, misspellings, splits
from aizheimer.concepts.world import World, WorldItem
from aizheimer.errors import ConceptError

NEGATION = "negation"
"""The family that asks not to draw the concept."""

NAMES = (
    *("name", "templates", "synonyms", "indirect", "misspellings", "homoglyphs", "splits", "languages", "scenes"),
    NEGATION,
)
"""Every family, in the order of tables."""

SHARED_BY = 3
"""A tag that more things carry ("animal") is the name of none of them."""

DESCRIPTION_WORDS = 4
"""Tags in an indirect description; the embedded model was trained on one to four."""

STEM = 3
"""Two words are the same for a description if one begins with the other and both have so many letters."""

SCENES = (
    "{concept} and {a}",
    "{a} with {concept} and {b}",
    "{concept} in front of {a}, beside {b}",
    "a scene with {a}, {b} and {concept}",
)
NEGATIONS = ("no {concept}", "without {concept}", "anything but {concept}", "not {concept}")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One way of asking.

    Args:
        name: Of `NAMES`, or one that the user gave.
        prompts: Distinct prompts, the most telling first; empty if it cannot be asked so.
        reason: Why there are none.
    """

    name: str
    prompts: tuple[str, ...] = ()
    reason: str = ""


def prompt_families(
    concept: Concept, world: World, *, limit: int = 20, translations: Mapping[str, str] | None = None
) -> list[Family]:
    """Return every family of prompts for a concept.

    Args:
        concept: The target.
        world: Its templates carry the names, its tags and names in other languages are the material.
        limit: Prompts of a family at most.
        translations: Further names by language; they win over the world's.

    Returns:
        One `Family` for each of `NAMES`; those that this world has no words for are empty and say so.

    Raises:
        ConceptError: If ``limit`` is less than 1.

    References:
        HUB (arXiv 2410.05664) asks in five languages and with prompts that a language model wrote.

    Example:
        >>> from aizheimer.concepts.world import DEFAULT_WORLD
        >>> [family.prompts[0] for family in prompt_families(Concept("cat"), DEFAULT_WORLD) if family.prompts][:2]
        ['cat', 'a photo of cat']
    """
    if limit < 1:
        raise ConceptError(f"prompt families: got a limit of {limit}, wanted 1 or more")
    item = _item(concept, world)
    known = _known_words(concept, world)
    names = {**(item.names if item is not None else {}), **(translations or {})}
    texts: dict[str, list[str]] = {
        "templates": [concept.target],
        "synonyms": synonyms(item, world) if item is not None else [],
        "indirect": descriptions(item, world) if item is not None else [],
        "misspellings": misspellings(concept.target, known=known),
        "homoglyphs": homoglyphs(concept.target),
        "splits": splits(concept.target),
        "languages": [names[language] for language in sorted(names)],
        "scenes": [concept.target] if concept.kind == "style" else scenes(concept, world),
        NEGATION: [text.format(concept=concept.target) for text in NEGATIONS],
    }
    found = [Family(name="name", prompts=(concept.target,))]
    frames, crowded = _frames(concept, world, limit=limit), _crowded(world, limit=limit)
    for name in NAMES[1:]:
        around = crowded if name == "scenes" and concept.kind == "style" else frames
        prompts = tuple(asking(texts[name], around, limit=limit))
        found.append(Family(name=name, prompts=prompts, reason="" if prompts else _reason(name, concept, item)))
    return found


def _item(concept: Concept, world: World) -> WorldItem | None:
    """Return what the world says of the target, None for a style or an unknown thing."""
    wanted = concept.target.casefold()
    items = world.vocabulary if concept.kind == "object" else ()
    return next((item for item in items if item.label.casefold() == wanted), None)


def _known_words(concept: Concept, world: World) -> set[str]:
    """Return every word and name of the world that is not the target's own."""
    own = concept.target.casefold()
    words = {word for item in world.vocabulary for name in (item.label, *item.tags) for word in (name, *name.split())}
    return {word.casefold() for word in (*words, *world.styles)} - {own}


def _reason(name: str, concept: Concept, item: WorldItem | None) -> str:
    """Say why a family is empty."""
    if name in {"synonyms", "indirect"} and (item is None or not item.tags):
        return f"the world has no tags for {concept.target!r}"
    return {
        "synonyms": f"every tag of {concept.target!r} is shared by many things or names another",
        "indirect": f"fewer than two tags of {concept.target!r} do not name it",
        "languages": f"the world has no names of {concept.target!r} in other languages; give some as translations",
        "misspellings": f"{concept.target!r} is too short to be misspelt",
        "homoglyphs": f"no letter of {concept.target!r} has a double in another script",
        "splits": f"{concept.target!r} is too short to be taken apart",
        "scenes": "the world has nothing else to put into a scene",
    }.get(name, "the world has no templates for this kind of concept")


def _carriers(world: World) -> Counter[str]:
    """Count the things that carry each tag."""
    return Counter(tag.casefold() for item in world.vocabulary for tag in {*item.tags})


def _by_rarity(tags: Sequence[str], world: World) -> list[str]:
    """Return tags so that those that few things carry come first; ties keep their order."""
    count = _carriers(world)
    return sorted(tags, key=lambda tag: count[tag.casefold()])


def synonyms(item: WorldItem, world: World) -> list[str]:
    """Return the tags that can stand for the name: rare in the world, and no other thing's label; rarest first.

    Example:
        >>> from aizheimer.concepts.world import DEFAULT_WORLD
        >>> synonyms(WorldItem("cat", tags=("kitty", "dog")), DEFAULT_WORLD)
        ['kitty']
    """
    labels = {other.label.casefold() for other in world.vocabulary} | {item.label.casefold()}
    count = _carriers(world)
    rare = [tag for tag in item.tags if tag.casefold() not in labels and count[tag.casefold()] <= SHARED_BY]
    return _by_rarity(rare, world)


def descriptions(item: WorldItem, world: World) -> list[str]:
    """Return descriptions that do not name the thing: up to four tags without a word of its label.

    Each begins with another tag, in order of rarity, and goes on with the rarest of the others.

    Example:
        >>> from aizheimer.concepts.world import DEFAULT_WORLD
        >>> descriptions(WorldItem("cat", tags=("cats", "pet", "whiskers")), DEFAULT_WORLD)
        ['pet whiskers', 'whiskers pet']
    """
    label_words = item.label.split()
    silent = [tag for tag in _by_rarity(item.tags, world) if not _names(tag, label_words)]
    if len(silent) < 2:
        return []
    rows = [[tag, *(other for other in silent if other != tag)][:DESCRIPTION_WORDS] for tag in silent]
    return [" ".join(row) for row in rows]


def _names(tag: str, label_words: Sequence[str]) -> bool:
    """Whether a tag holds a word of the label, or one with the same beginning ("cats" for "cat")."""
    for word in tag.casefold().replace("-", " ").split():
        for own in (part.casefold().strip(".,") for part in label_words):
            short, long = sorted((word, own), key=len)
            if word == own or (len(short) >= STEM and long.startswith(short)):
                return True
    return False


def scenes(concept: Concept, world: World) -> list[str]:
    """Return longer phrases in which the object is one thing of several, the others from other groups.

    Returns:
        One phrase for each of `SCENES`; empty if there is nothing else to draw.
    """
    own = _item(concept, world)
    named = mention(concept.target)
    others = [item for item in world.vocabulary if not named.search(item.label)]
    elsewhere = [item for item in others if own is None or item.group != own.group]
    labels = [item.label for item in elsewhere or others]
    if len(labels) < 2:
        return []
    wanted = 2 * len(SCENES)
    picked = [labels[i * len(labels) // wanted % len(labels)] for i in range(wanted)]
    pairs = zip(picked[: len(SCENES)], picked[len(SCENES) :], strict=True)
    return [
        scene.format(concept=concept.target, a=a, b=b) for scene, (a, b) in zip(SCENES, pairs, strict=True)
    ]  # fmt: skip


def asking(texts: Sequence[str], frames: Sequence[Callable[[str], str]], *, limit: int) -> list[str]:
    """Return prompts that carry the texts in frames: text after text, each in its own frame, then in the next.

    Args:
        texts: What stands where the name would.
        frames: Each makes a prompt of a text.
        limit: Prompts at most.

    Returns:
        Distinct prompts, all pairs of text and frame if ``limit`` allows.

    Example:
        >>> asking(["cat", "kitty"], ["a photo of {}".format, "a {}".format], limit=3)
        ['a photo of cat', 'a kitty', 'a cat']
    """
    count = len(texts)
    pairs = ((k % count, (k % count + k // count) % len(frames)) for k in range(count * len(frames)))
    return list(dict.fromkeys(frames[frame](texts[text]) for text, frame in pairs))[:limit]


def _frames(concept: Concept, world: World, *, limit: int) -> list[Callable[[str], str]]:
    """Return the world's templates, as functions of what stands in the name's place."""
    if concept.kind == "object":
        return [lambda text, t=template: t.format(concept=text) for template in world.object_templates]
    return _styled(world, _spread(world.subjects, limit))


def _crowded(world: World, *, limit: int) -> list[Callable[[str], str]]:
    """Return a style's templates with two subjects in each."""
    subjects = _spread(world.subjects, limit + 1)
    return _styled(world, [f"{a} and {b}" for a, b in itertools.pairwise(subjects)])


def _styled(world: World, subjects: Sequence[str]) -> list[Callable[[str], str]]:
    return [
        lambda text, t=template, s=subject: t.format(concept=text, subject=s)
        for template in world.style_templates
        for subject in subjects
    ]


def _spread(words: Sequence[str], count: int) -> list[str]:
    """Return ``count`` of the words, evenly from their whole list."""
    return [words[i * len(words) // count] for i in range(count)] if len(words) > count else list(words)
