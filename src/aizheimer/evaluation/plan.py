"""Which pictures to draw, decided before any is drawn, from words and seeds alone.

Pictures that do not depend on the target (its far neighbours, say) come out the same for every target, so that the
unedited model's pictures are found in the cache when another edit is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from aizheimer.concepts.concept import Concept
from aizheimer.concepts.neighbours import nearest
from aizheimer.concepts.world import World
from aizheimer.errors import InputError
from aizheimer.evaluation.settings import EvaluationSettings

Role = Literal["target", "neighbour", "other", "cross"]
"""What a picture is for: the target, a near or a far concept of its domain, or only the other domain."""

ARTICLES = ("a ", "an ", "the ")

STARTS = 5
"""Retained concepts begin at one of this many initial noises in turn, so that no single noise decides."""


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One picture, and what it should show.

    Attributes:
        role: See :data:`Role`.
        prompt: Its words.
        seed: Of its initial noise.
        object: The object the prompt asks for, None if it asks for none.
        style: The style the prompt asks for, None if it asks for none.
    """

    role: Role
    prompt: str
    seed: int
    object: str | None = None
    style: str | None = None


def candidates(concept: Concept, world: World) -> list[str]:
    """Return the other members of the target's own domain."""
    words = world.styles if concept.kind == "style" else tuple(item.label for item in world.vocabulary)
    return [word for word in words if _key(word) != _key(concept.target)]


def nearest_candidates(
    concept: Concept, world: World, *, embed: Callable[[list[str]], Tensor], count: int
) -> list[tuple[str, float]]:
    """Return the `candidates` nearest to the target with their cosines, nearest first; see `nearest`.

    Args:
        concept: The target.
        world: What the model draws, in words.
        embed: The model's `Backbone.embed_concepts`.
        count: How many; all of them if there are fewer.
    """
    return nearest(concept.target, candidates(concept, world), embed, count)


def plan_images(
    concept: Concept, world: World, *, neighbours: Sequence[str], settings: EvaluationSettings
) -> list[PlannedImage]:
    """Decide on every picture of an evaluation.

    Args:
        concept: The target.
        world: What the model draws, in words.
        neighbours: Other members of the target's domain, nearest first.
        settings: How many of each.

    Returns:
        Target pictures, then neighbours, then others, then what only the other domain's judge looks at.

    Raises:
        InputError: If the world has no prompts for this kind of concept.
    """
    neighbours = neighbours[: settings.neighbours]
    if concept.kind == "style":
        return _plan_style(concept, world, neighbours, settings)
    return _plan_object(concept, world, neighbours, settings)


def _plan_object(
    concept: Concept, world: World, neighbours: Sequence[str], settings: EvaluationSettings
) -> list[PlannedImage]:
    templates = world.object_templates
    if not templates:
        raise InputError(f"world {world.name!r}: no object_templates, so no prompts for {concept.target!r}; add some")
    order = {_key(item.label): i for i, item in enumerate(world.vocabulary)}
    styles = _style_by_template(world)
    taken = {_key(word) for word in (concept.target, *neighbours)}
    others = [label for label in stratified(world, settings.seed) if _key(label) not in taken][: settings.others]

    def images(role: Role, label: str, count: int, position: int) -> list[PlannedImage]:
        """Go through the templates, then the next seed; where to begin depends on the label, not on the target."""
        first_seed = settings.seed + (position // len(templates)) % STARTS
        chosen = [templates[(position + k) % len(templates)] for k in range(count)]
        return [
            PlannedImage(role, t.format(concept=label), first_seed + k // len(templates), label, styles.get(t))
            for k, t in enumerate(chosen)
        ]

    plan = images("target", concept.target, settings.target_images, 0)
    for label in neighbours:
        plan += images("neighbour", label, settings.neighbour_images, order.get(_key(label), 0))
    for label in others:
        plan += images("other", label, settings.other_images, order.get(_key(label), 0))
    if not any(image.style for image in plan) and world.styles and world.style_templates:
        plan += _cross_images(concept, world, settings)
    return plan


def _plan_style(
    concept: Concept, world: World, neighbours: Sequence[str], settings: EvaluationSettings
) -> list[PlannedImage]:
    if not world.style_templates or not world.subjects:
        raise InputError(f"world {world.name!r}: no style_templates or subjects, so no prompts for a style; add some")
    subjects = _subjects(world, settings.seed)
    near = {_key(word) for word in neighbours}
    far = [style for style in world.styles if _key(style) not in {_key(concept.target), *near}]
    retained = [*neighbours, *far[: settings.others]]
    each = max(1, settings.retain_images // len(retained)) if retained else 0
    plan = [_styled("target", concept.target, i, subjects, world, settings) for i in range(settings.target_images)]
    for position, style in enumerate(retained):
        role: Role = "neighbour" if position < len(neighbours) else "other"
        offset = 7 * world.styles.index(style) if style in world.styles else 0
        plan += [_styled(role, style, offset + k, subjects, world, settings) for k in range(each)]
    return plan


def _cross_images(concept: Concept, world: World, settings: EvaluationSettings) -> list[PlannedImage]:
    """Ask for styles where the object prompts name none, so that the other domain can be judged at all."""
    subjects = [s for s in _subjects(world, settings.seed) if _key(concept.target) not in _key(s)]
    count = min(settings.others, len(subjects)) if subjects else 0
    return [_styled("cross", world.styles[i % len(world.styles)], i, subjects, world, settings) for i in range(count)]


def _styled(
    role: Role, style: str, index: int, subjects: Sequence[str], world: World, settings: EvaluationSettings
) -> PlannedImage:
    """Return the ``index``-th picture of a style: another subject each, then other templates, then other seeds."""
    subject = subjects[index % len(subjects)]
    template = world.style_templates[(index // len(subjects)) % len(world.style_templates)]
    seed = settings.seed + index % STARTS + STARTS * (index // (len(subjects) * len(world.style_templates)))
    return PlannedImage(role, template.format(concept=style, subject=subject), seed, _bare(subject), style)


def _style_by_template(world: World) -> dict[str, str]:
    """Find which style an object template names: it reads as a style template with that style filled in."""
    found = {}
    for style in world.styles:
        for template in world.style_templates:
            filled = template.format(subject="{concept}", concept=style)
            if filled in world.object_templates:
                found[filled] = style
    return found


def stratified(world: World, seed: int) -> list[str]:
    """Return all labels so that every beginning of the list holds each group about equally often.

    Args:
        world: Its vocabulary knows the groups.
        seed: Of the order within each group.
    """
    groups: dict[str, list[str]] = {}
    for item in world.vocabulary:
        groups.setdefault(item.group, []).append(item.label)
    rng = np.random.default_rng(seed)
    shuffled = [[labels[i] for i in rng.permutation(len(labels))] for labels in groups.values()]
    longest = max(map(len, shuffled), default=0)
    return [labels[rank] for rank in range(longest) for labels in shuffled if rank < len(labels)]


def _subjects(world: World, seed: int) -> list[str]:
    """Return the subjects of style prompts, by group where the vocabulary knows them, else as they are listed."""
    known = {_key(label): label for label in stratified(world, seed)}
    listed = {_key(subject): subject for subject in world.subjects}
    return [*(listed[k] for k in known if k in listed), *(s for k, s in listed.items() if k not in known)]


def _bare(subject: str) -> str:
    """Return "house" for "a house": what a judge calls it."""
    return next((subject[len(a) :] for a in ARTICLES if subject.casefold().startswith(a)), subject)


def _key(word: str) -> str:
    return word.strip().casefold()
