"""Which prompts must keep their pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention
from aizheimer.concepts.neighbours import nearest
from aizheimer.errors import ConceptError

SUBJECTS_PER_STYLE = 16


@dataclass(frozen=True, kw_only=True)
class RetainSet:
    """Retain prompts and how they were chosen.

    Args:
        prompts: The prompts, one of every concept first, so that any first few of them cover as many concepts as
            they can; concepts the user named come first.
        kept: Concepts the user named.
        neighbours: Nearest neighbours of the target with their cosine similarity, nearest first.
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
    without: Sequence[Concept] = (),
) -> RetainSet:
    """Choose what to retain: the user's concepts, the target's neighbours, random others and general prompts.

    When the target is a style, neighbours and others are styles, drawn on random subjects.

    Args:
        backbone: Names the world and embeds the words.
        concept: Its ``keep`` is always in.
        neighbours: Number of nearest neighbours by text embedding; every template of each.
        others: Number of random other concepts; one template of each.
        general: Number of prompts about nothing in particular.
        generator: Chooses subjects and others.
        without: Other concepts that nothing is retained of: they are to be forgotten too.

    Returns:
        The prompts; none of them asks for the target or for one of ``without``.

    Raises:
        ConceptError: If nothing at all is left to retain.
    """
    world = backbone.world
    labels = world.styles if concept.kind == "style" else tuple(item.label for item in world.vocabulary)
    gone = (concept, *without)
    taken = {_fold(word) for word in (*(one.target for one in gone), *concept.keep)}
    free = [label for label in labels if _fold(label) not in taken]
    near = nearest(concept.target, free, backbone.embed_concepts, min(neighbours, len(free))) if neighbours else []
    rest = [label for label in free if label not in {name for name, _ in near}]
    chosen = [rest[i] for i in torch.randperm(len(rest), generator=generator)[:others].tolist()]
    families = [_family(backbone, concept, label, generator) for label in (*concept.keep, *(name for name, _ in near))]
    families += [_family(backbone, concept, label, generator)[:1] for label in chosen]
    families += [[prompt] for prompt in world.general_prompts[:general]]
    prompts = _interleave(families)
    forget = {_fold(prompt) for one in gone for prompt in world.prompts(one)}
    styles = [mention(one.target) for one in gone if one.kind == "style"]
    prompts = [p for p in prompts if _fold(p) not in forget and not any(style.search(p) for style in styles)]
    if not prompts:
        raise ConceptError(f"nothing to retain beside '{concept.target}'; name something with --keep")
    return RetainSet(prompts=tuple(prompts), kept=concept.keep, neighbours=tuple(near), others=tuple(chosen))


def _family(backbone: Backbone, concept: Concept, label: str, generator: torch.Generator) -> list[str]:
    """Return the prompts of one label in a random order of their templates."""
    world = backbone.world
    if concept.kind == "style" and world.kind_of(label) == "style":
        prompts = world.prompts(Concept(label, kind="style"))
        limit = SUBJECTS_PER_STYLE
    else:
        prompts, limit = world.prompts_for(label), None
    return [prompts[i] for i in torch.randperm(len(prompts), generator=generator)[:limit].tolist()]


def _interleave(families: Sequence[Sequence[str]]) -> list[str]:
    rounds = itertools.zip_longest(*families)
    return list(dict.fromkeys(prompt for one in rounds for prompt in one if prompt is not None))


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
