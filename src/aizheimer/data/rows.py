"""Text rows: which tokens of a prompt stand for a concept, and which rows of an anchor answer in their place.

A *row* is what the text encoder says at one token: the vector that keys and values of cross-attention are made of.
Rows here are float64, on the CPU, and divided by the encoder's own scale (`row_scale`), so that numbers such as a ridge
mean the same for every encoder. Projections are linear in a row: a map found on scaled rows holds for the real ones.

The text encoder is causal: tokens *after* a concept, end-of-text and padding among them, have read it; those before
have not. The begin-of-text row is one vector, the same in every prompt, and never stands for anything: an anchor
without words is the first end-of-text row of its prompt, not, as the last token's index in the empty prompt would have
it, that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.anchors import EmptyAnchor, anchor_prompts
from aizheimer.errors import ConceptError

RowPolicy = Literal["last", "last..end", "all", "others", "eot", "concept"]
"""Which rows of a prompt stand for the concept in it.

``last``
    The concept's last sub-token, which has read all of the concept. (UCE since 2025, SPEED, OCE.)
``last..end``
    That one and everything after it, end-of-text and padding included. (UCE, 2023.)
``all``
    Every row, begin-of-text included. (RECE.)
``others``
    All but the concept's own sub-tokens. (MACE's first stage.)
``eot``
    The first end-of-text row, which sums up the sentence. (TRCE.)
``concept``
    The concept's own sub-tokens.
"""

Prompts = Literal["bare", "templates", "both"]
"""The prompts a concept's rows are read in: its bare words, the world's templates, or both."""

RowAnchor = Literal["auto", "null", "template", "average"]
"""What answers when an anchor has no words: as `EmptyAnchor`, or the average of the world's other concepts."""

PROMPT_LIMIT = 32
"""Most templates that are read; a style has one for each subject. MACE uses 30."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where things are in one prompt, counted from the first token of a text encoder's window, position 0.

    Args:
        ids: Token ids of the whole window.
        own: Positions of the concept's sub-tokens; empty for an anchor without words.
        eot: Position of the first end-of-text.
        first: Position of the first word: 1 after CLIP's begin-of-text, 0 in T5, which has none.
        start: Where the window begins on the token axis.
    """

    ids: tuple[int, ...]
    own: tuple[int, ...]
    eot: int
    first: int = 1
    start: int = 0

    @property
    def last(self) -> int:
        """The last sub-token; without any, the first end-of-text, never begin-of-text."""
        return self.own[-1] if self.own else self.eot


@dataclass(frozen=True, kw_only=True)
class RowPairs:
    """Rows of the target and, one for each, the row that should answer in its place.

    Args:
        keys: (n, dim) rows of the target.
        sources: (n, dim) rows of the anchor.
    """

    keys: Float[Tensor, "n dim"]
    sources: Float[Tensor, "n dim"]


def row_scale(backbone: Backbone) -> float:
    """Return the root mean square entry of the empty prompt's rows: about 1 after a final layer norm of gain 1."""
    return float(backbone.encode_prompts([""]).cpu().double().square().mean().sqrt())


def encode_rows(
    backbone: Backbone, prompts: Sequence[str], *, scale: float | None = None
) -> Float[Tensor, "prompts tokens dim"]:
    """Return every row of every prompt.

    Args:
        backbone: The model.
        prompts: Any prompts; the empty one too.
        scale: What to divide by; by default the encoder's own scale.
    """
    return backbone.encode_prompts(prompts).cpu().double() / (row_scale(backbone) if scale is None else scale)


def places(backbone: Backbone, prompts: Sequence[str], *, words: str, window: int = 0) -> list[Place]:
    """Find a concept's words and the end of text in prompts.

    Args:
        backbone: The model, for its tokenizers.
        prompts: Prompts that contain the words.
        words: The concept, or the anchor; nothing finds nothing.
        window: Of which text encoder on the token axis.

    Raises:
        ConceptError: If they are not in a prompt, or cut off.
    """
    chosen = backbone.windows[window]
    ids = chosen.tokenize(prompts)
    own = [()] * len(prompts)
    if words:
        marked = chosen.columns(prompts, words, policy="concept")
        own = [tuple(row.nonzero()[:, 0].tolist()) for row in marked]
    return [
        Place(ids=tuple(row), own=here, eot=end, first=chosen.first, start=chosen.start)
        for row, here, end in zip(ids.tolist(), own, chosen.ends(ids), strict=True)
    ]


def positions(place: Place, policy: RowPolicy) -> list[int]:
    """Return the positions that a policy chooses in a prompt.

    Example:
        >>> place = Place(ids=(0, 5, 7, 6, 9, 9), own=(2,), eot=4)  # BOS a CONCEPT b EOT PAD
        >>> [positions(place, policy) for policy in ("last", "last..end", "others", "eot")]
        [[2], [2, 3, 4, 5], [0, 1, 3, 4, 5], [4]]
    """
    window = len(place.ids)
    chosen = {
        "last": [place.last],
        "last..end": list(range(place.last, window)),
        "all": list(range(window)),
        "others": [p for p in range(window) if p not in place.own],
        "eot": [place.eot],
        "concept": list(place.own) or [place.eot],
    }
    return chosen[policy]


def aligned(target: Place, anchor: Place, *, policy: RowPolicy) -> list[tuple[int, int]]:
    """Return pairs of positions: of the target's prompt, and of the anchor's that answers in its place.

    ``last..end`` counts on from both last sub-tokens until one of the windows ends. ``concept`` counts back from them;
    a longer target repeats the anchor's first sub-token. ``others`` pairs words that both prompts share before and
    after, end-of-text with end-of-text, and padding with padding; words that only one has are left out. ``all`` pairs
    equal positions.
    """
    chosen = positions(target, policy)
    window = len(target.ids)
    if policy == "last..end":
        shift = anchor.last - target.last
        return [(p, p + shift) for p in chosen if p + shift < window]
    if policy == "concept":
        own = anchor.own or (anchor.eot,)
        return [(p, own[max(len(own) - len(chosen) + i, 0)]) for i, p in enumerate(chosen)]
    if policy == "others":
        return [(p, q) for p in chosen for q in _shared(target, anchor, position=p)]
    ends = {"last": anchor.last, "eot": anchor.eot}
    return [(p, ends.get(policy, p)) for p in chosen]


def _shared(target: Place, anchor: Place, *, position: int) -> list[int]:
    """Return where the token at a position outside the concept is in the anchor's prompt, or nothing."""
    window, shift = len(target.ids), anchor.eot - target.eot
    if position >= target.eot:
        return [position + shift] if position + shift < window else []
    if position < target.own[0]:
        return [position] if target.ids[: position + 1] == anchor.ids[: position + 1] else []
    suffix = target.ids[position : target.eot]
    same = position + shift > 0 and suffix == anchor.ids[position + shift : anchor.eot]
    return [position + shift] if same and position > target.own[-1] else []


def forget_prompts(backbone: Backbone, concept: Concept, *, which: Prompts) -> list[str]:
    """Return the prompts that a concept's rows are read in, at most `PROMPT_LIMIT` templates, evenly chosen.

    Raises:
        ConceptError: If the concept is cut off in one of them.
    """
    prompts = backbone.world.prompts(concept)
    if len(prompts) > PROMPT_LIMIT:
        prompts = [prompts[i * len(prompts) // PROMPT_LIMIT] for i in range(PROMPT_LIMIT)]
    bare = [] if which == "templates" else [concept.target]
    found = list(dict.fromkeys(bare + ([] if which == "bare" else prompts)))
    backbone.token_columns(found, concept.target, policy="concept")
    return found


def anchor_pairs(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    concept: Concept,
    policy: RowPolicy | tuple[RowPolicy, ...],
    empty: EmptyAnchor = "auto",
    scale: float | None = None,
) -> RowPairs:
    """Return the rows of a concept in prompts, and the anchor's rows that should answer in their place.

    Args:
        backbone: The model.
        prompts: Prompts with the concept.
        concept: Names target and anchor.
        policy: Which rows, see `RowPolicy`; of several, one after the other.
        empty: The anchor's prompt when it has no words, see `aizheimer.data.anchors.anchor_prompts`. Its last sub-token
            is then its first end-of-text row.
        scale: What rows are divided by; by default the encoder's own scale.

    Raises:
        ConceptError: If target or anchor are cut off, or no row of the one has a counterpart in the other.
    """
    scale = row_scale(backbone) if scale is None else scale
    others = anchor_prompts(prompts, concept, empty=empty)
    here, there = (encode_rows(backbone, texts, scale=scale) for texts in (prompts, others))
    pairs = []
    for window in range(len(backbone.windows)):
        targets = places(backbone, prompts, words=concept.target, window=window)
        anchors = places(backbone, others, words=concept.anchor, window=window)
        pairs += aligned_rows(targets, anchors, policy)
    if not pairs:
        raise ConceptError(
            f"no row of '{prompts[0]}' has a counterpart in '{others[0]}' (rows: {policy}); name another anchor."
        )
    return RowPairs(
        keys=torch.stack([here[i, p] for i, p, _ in pairs]), sources=torch.stack([there[i, q] for i, _, q in pairs])
    )


def aligned_rows(
    targets: Sequence[Place], anchors: Sequence[Place], policy: RowPolicy | tuple[RowPolicy, ...]
) -> list[tuple[int, int, int]]:
    """Return (prompt, position in the target's, position in the anchor's) of every pair, on the token axis."""
    policies = (policy,) if isinstance(policy, str) else policy
    return [
        (i, target.start + p, anchor.start + q)
        for one in policies
        for i, (target, anchor) in enumerate(zip(targets, anchors, strict=True))
        for p, q in aligned(target, anchor, policy=one)
    ]


def prompt_rows(
    backbone: Backbone, prompts: Sequence[str], *, policy: RowPolicy, scale: float | None = None
) -> Float[Tensor, "n dim"]:
    """Return rows of prompts that are a concept by themselves, such as bare words to retain.

    The whole text is the concept: ``last`` is the token before end-of-text, and of the empty prompt its first
    end-of-text row.
    """
    rows = encode_rows(backbone, prompts, scale=scale)
    found = [places(backbone, prompts, words="", window=window) for window in range(len(backbone.windows))]
    chosen = []
    for own, *each in zip(rows, *found, strict=True):
        for place in each:
            whole = replace(place, own=tuple(range(place.first, place.eot)))
            chosen.append(own[[place.start + p for p in positions(whole, policy)]])
    return torch.cat(chosen)
