"""The average concept's rows: what is left of a prompt's when their dependence on the concept is averaged out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import anchor_prompts
from aizheimer.data.rows import Place, RowPairs, RowPolicy, aligned_rows, encode_rows, places, row_scale
from aizheimer.errors import ConceptError

_OWN = -1
"""Stands for every token of the concept itself: no rule of `aizheimer.data.rows.aligned` looks at these."""
_HOLE = "\0"
"""Stands for the concept in its prompts."""


def average_pairs(
    backbone: Backbone,
    asked: Sequence[tuple[Concept, Sequence[str]]],
    *,
    policy: RowPolicy | tuple[RowPolicy, ...],
    words: Sequence[str],
    scale: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[RowPairs]:
    """Return the rows of concepts in prompts, and the average row of other concepts that stand in their place.

    Each of the words takes the concept's place in each prompt in turn, and answers for the concept's rows as an anchor
    would (`aligned`). Their mean is the row that says "some concept, in these words" and nothing of which one: what is
    left of a row when its dependence on the concept is averaged out.

    Several concepts cost what one does. With another word in its place, a concept's prompt is that of any other
    concept in the same template: it is read once for all of them. Concepts of as many tokens have the very same
    average, which is taken once.

    Args:
        backbone: The model.
        asked: Concepts, and prompts with each; their anchors are not read.
        policy: Which rows, see `RowPolicy`; of several, one after the other.
        words: Other concepts of the same kind than any of these. One that is cut off is left out.
        scale: What rows are divided by; by default the encoder's own scale.
        progress: Told how many words have been read, and of how many.

    Raises:
        ConceptError: If a target is cut off, or no word has a counterpart to its rows.
    """
    scale = row_scale(backbone) if scale is None else scale
    windows = range(len(backbone.windows))
    averages: dict[tuple[str, ...], dict[tuple[tuple[Place, ...], ...], _Average]] = {}
    mine = []
    for concept, prompts in asked:
        targets = [places(backbone, prompts, words=concept.target, window=window) for window in windows]
        shape = tuple(tuple(_without_own(place) for place in own) for own in targets)
        texts = tuple(anchor_prompts(prompts, replace(concept, anchor=_HOLE)))
        mine.append(averages.setdefault(texts, {}).setdefault(shape, _Average.of(shape, policy)))
    for done, word in enumerate(words, start=1):
        for texts, alike in averages.items():
            others = [text.replace(_HOLE, " ".join(word.split())) for text in texts]
            try:
                found = [places(backbone, others, words=word, window=window) for window in windows]
            except ConceptError:
                continue
            there = encode_rows(backbone, others, scale=scale)
            for average in alike.values():
                average.add(found, there)
        if progress is not None:
            progress(done, len(words))
    return [
        average.pairs(encode_rows(backbone, prompts, scale=scale), prompt=prompts[0], tried=len(words))
        for (_, prompts), average in zip(asked, mine, strict=True)
    ]


def _without_own(place: Place) -> Place:
    """Return a place whose concept could be any of as many tokens."""
    return replace(place, ids=tuple(_OWN if i in place.own else token for i, token in enumerate(place.ids)))


@dataclass(kw_only=True)
class _Average:
    """The sums of the rows that answer for those of a concept, of which only the number of tokens counts.

    Args:
        shape: Places of the concept in its prompts, by window of the text.
        policy: Which of its rows are answered for.
        slots: (prompt, position) of these rows.
        sums: (slots, dim) sums of the rows that answer; None before the first.
        counts: (slots, 1) how many did.
    """

    shape: tuple[tuple[Place, ...], ...]
    policy: RowPolicy | tuple[RowPolicy, ...]
    slots: list[tuple[int, int]]
    sums: Tensor | None = None
    counts: Tensor = field(default_factory=lambda: torch.zeros(0, 1))

    @classmethod
    def of(cls, shape: tuple[tuple[Place, ...], ...], policy: RowPolicy | tuple[RowPolicy, ...]) -> _Average:
        slots = list(dict.fromkeys((i, p) for own in shape for i, p, _ in aligned_rows(own, own, policy)))
        return cls(shape=shape, policy=policy, slots=slots)

    def add(self, found: Sequence[Sequence[Place]], there: Tensor) -> None:
        """Add the rows of one word's prompts; ``found`` says where it is in them, by window."""
        pairs = [
            pair for own, other in zip(self.shape, found, strict=True) for pair in aligned_rows(own, other, self.policy)
        ]
        if self.sums is None:
            self.sums = torch.zeros(len(self.slots), there.shape[-1], dtype=there.dtype)
            self.counts = torch.zeros(len(self.slots), 1, dtype=there.dtype)
        index = {slot: n for n, slot in enumerate(self.slots)}
        at = torch.tensor([index[i, p] for i, p, _ in pairs])
        self.sums.index_add_(0, at, torch.stack([there[i, q] for i, _, q in pairs]))
        self.counts.index_add_(0, at, torch.ones(len(pairs), 1, dtype=there.dtype))

    def pairs(self, here: Tensor, *, prompt: str, tried: int) -> RowPairs:
        """Return a concept's rows and their average, where there is one.

        Args:
            here: (prompts, tokens, dim) the rows of the concept's prompts.
            prompt: One of these, for a message.
            tried: Words that were tried, for a message.

        Raises:
            ConceptError: If no word has a counterpart to its rows.
        """
        answered = self.counts[:, 0] > 0
        if self.sums is None or not bool(answered.any()):
            raise ConceptError(
                f"no other concept has a counterpart to the rows of '{prompt}' (rows: {self.policy}; {tried} tried); "
                "name an anchor."
            )
        keys = torch.stack([here[i, p] for i, p in self.slots])
        return RowPairs(keys=keys[answered], sources=self.sums[answered] / self.counts[answered])
