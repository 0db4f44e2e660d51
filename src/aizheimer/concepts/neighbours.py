"""The concepts nearest to a target: the first to suffer when it is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aizheimer.errors import ConceptError


def nearest(
    target: str, candidates: Sequence[str], embed: Callable[[list[str]], Tensor], k: int
) -> list[tuple[str, float]]:
    """Return the ``k`` candidates whose embeddings lie nearest to the target's.

    Nearness is the cosine, ``e_t . e_c / (|e_t| |e_c|)``, of whatever ``embed`` returns; with
    ``Backbone.embed_concepts`` it is nearness in the eyes of the model's own text encoder. The
    target itself and repetitions are left out, whatever their case.

    Args:
        target: The concept whose neighbours are asked for.
        candidates: Concepts to choose from.
        embed: Maps n texts to a float tensor (n, dim). Called once.
        k: How many to return; all candidates if there are fewer.

    Returns:
        Pairs of candidate and cosine in [-1, 1], nearest first; ties keep the candidates' order.

    Raises:
        ConceptError: ``k`` is negative.

    Example:
        >>> vectors = {"cat": [1.0, 0.0], "tiger": [0.8, 0.6], "car": [0.0, 1.0]}
        >>> nearest("cat", ["car", "tiger"], lambda words: torch.tensor([vectors[w] for w in words]), 1)
        [('tiger', 0.8...)]
    """
    return nearest_of_each([target], candidates, embed, k)[0]


def nearest_of_each(
    targets: Sequence[str], candidates: Sequence[str], embed: Callable[[list[str]], Tensor], k: int
) -> list[list[tuple[str, float]]]:
    """Return `nearest` of each of several targets, none of which is a neighbour of another.

    Args:
        targets: Concepts whose neighbours are asked for, one or more.
        candidates: Concepts to choose from.
        embed: As of `nearest`. Called once for all.
        k: How many to return of each.

    Raises:
        ConceptError: ``k`` is negative.
    """
    if k < 0:
        raise ConceptError(f"number of neighbours: got {k}, wanted 0 or more.")
    seen, words = {target.strip().casefold() for target in targets}, []
    for word in candidates:
        if (key := word.strip().casefold()) not in seen:
            seen.add(key)
            words.append(word)
    if not words or k == 0:
        return [[] for _ in targets]
    vectors = torch.nn.functional.normalize(embed([*targets, *words]).float(), dim=-1)
    found = []
    for vector in vectors[: len(targets)]:
        cosine, order = torch.sort(vectors[len(targets) :] @ vector, descending=True, stable=True)
        found.append([(words[i], value) for i, value in zip(order[:k].tolist(), cosine[:k].tolist(), strict=True)])
    return found
