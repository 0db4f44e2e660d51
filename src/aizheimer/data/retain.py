"""Which prompts must keep their pictures."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aizheimer._names import folded
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept, Kind
from aizheimer.concepts.mentions import mention
from aizheimer.concepts.neighbours import nearest_of_each
from aizheimer.errors import ConceptError

SUBJECTS_PER_STYLE = 16
MOST_NEIGHBOURS = 64
"""Neighbours of several targets in all: what they hold must fit beside them into a few hundred directions of a text."""


@dataclass(frozen=True, kw_only=True)
class RetainSet:
    """Retain prompts and how they were chosen.

    Args:
        prompts: The prompts, one of every concept first, so that any first few of them cover as many concepts as
            they can; concepts the user named come first.
        kept: Concepts the user named.
        neighbours: Nearest neighbours of the target with their cosine similarity, nearest first; of several targets
            each is listed once, with its similarity to the target that it is nearest to.
        others: Random other concepts of the world.
    """

    prompts: tuple[str, ...]
    kept: tuple[str, ...]
    neighbours: tuple[tuple[str, float], ...]
    others: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return what a user is shown of it, as JSON values."""
        return {
            "retain_prompts": list(self.prompts),
            "neighbours": [list(pair) for pair in self.neighbours],
            "kept": list(self.kept),
        }


def retain_set(
    backbone: Backbone,
    concept: Concept,
    *,
    neighbours: int,
    others: int,
    general: int,
    generator: torch.Generator,
    also: Sequence[Concept] = (),
    without: Sequence[Concept] = (),
) -> RetainSet:
    """Choose what to retain: the user's concepts, the target's neighbours, random others and general prompts.

    When the target is a style, neighbours and others are styles, drawn on random subjects. Of several targets each has
    its own neighbours, of its kind, in turn: the nearest of each, then the second nearest, until there are
    `MOST_NEIGHBOURS`, or ``neighbours`` if that is more. The order of the targets changes nothing.

    Args:
        backbone: Names the world and embeds the words.
        concept: Its ``keep`` is always in.
        neighbours: Number of nearest neighbours of each target by text embedding; every template of each.
        others: Number of random other concepts; one template of each.
        general: Number of prompts about nothing in particular.
        generator: Chooses subjects and others.
        also: Targets beside the concept, forgotten with it: nothing is retained of them but their neighbours.
        without: Other concepts that nothing is retained of: they are to be forgotten too.

    Returns:
        The prompts; none of them asks for a target or for one of ``without``.

    Raises:
        ConceptError: If nothing at all is left to retain.
    """
    world = backbone.world
    targets, gone = (concept, *also), (concept, *also, *without)
    taken = {folded(word) for word in (*(one.target for one in gone), *concept.keep)}
    free: dict[Kind, list[str]] = {
        kind: [label for label in world.labels(kind) if folded(label) not in taken] for kind in _kinds(targets)
    }
    near = _neighbours(backbone, targets, free, count=neighbours)
    rest = [label for labels in free.values() for label in labels if label not in {name for name, _ in near}]
    chosen = [rest[i] for i in torch.randperm(len(rest), generator=generator)[:others].tolist()]
    draw = functools.partial(_family, backbone, styled="style" in free, generator=generator)
    families = [draw(label) for label in (*concept.keep, *(name for name, _ in near))]
    families += [draw(label)[:1] for label in chosen]
    families += [[prompt] for prompt in world.general_prompts[:general]]
    prompts = _interleave(families)
    forget = {folded(prompt) for one in gone for prompt in world.prompts(one)}
    styles = [mention(one.target) for one in gone if one.kind == "style"]
    prompts = [p for p in prompts if folded(p) not in forget and not any(style.search(p) for style in styles)]
    if not prompts:
        raise ConceptError(f"nothing to retain beside '{concept.target}'; name something with --keep")
    return RetainSet(prompts=tuple(prompts), kept=concept.keep, neighbours=tuple(near), others=tuple(chosen))


def _kinds(targets: Sequence[Concept]) -> list[Kind]:
    """Return the targets' kinds in an order that is not theirs."""
    return sorted({one.kind for one in targets})


def _neighbours(
    backbone: Backbone, targets: Sequence[Concept], free: Mapping[Kind, Sequence[str]], *, count: int
) -> list[tuple[str, float]]:
    """Return the neighbours of every target among the free labels of its kind, the nearest first."""
    ranked: dict[str, tuple[int, float]] = {}
    for kind, labels in free.items():
        words = [one.target for one in targets if one.kind == kind]
        for found in nearest_of_each(words, labels, backbone.embed_concepts, min(count, len(labels))) if count else ():
            for place, (name, cosine) in enumerate(found):
                best = ranked.get(name, (place, cosine))
                ranked[name] = (min(best[0], place), max(best[1], cosine))
    most = count if len(targets) == 1 else max(count, MOST_NEIGHBOURS)
    chosen = sorted(ranked.items(), key=lambda item: (item[1][0], -item[1][1]))[:most]
    return sorted(((name, cosine) for name, (_, cosine) in chosen), key=lambda pair: -pair[1])


def _family(backbone: Backbone, label: str, *, styled: bool, generator: torch.Generator) -> list[str]:
    """Return the prompts of one label in a random order of their templates; a style's only if styles are asked for."""
    world = backbone.world
    if styled and world.kind_of(label) == "style":
        prompts = world.prompts(Concept(label, kind="style"))
        limit = SUBJECTS_PER_STYLE
    else:
        prompts, limit = world.prompts_for(label), None
    return [prompts[i] for i in torch.randperm(len(prompts), generator=generator)[:limit].tolist()]


def _interleave(families: Sequence[Sequence[str]]) -> list[str]:
    rounds = itertools.zip_longest(*families)
    return list(dict.fromkeys(prompt for one in rounds for prompt in one if prompt is not None))
