"""Deal pictures out to several processes, and put them together again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from aizheimer._processes import processes
from aizheimer.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PromptJob:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Share:
    """One of so many equal parts of a list of batches.

    Args:
        number: Which, from 1.
        count: Of how many.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read "2/4".

        Raises:
            InputError: If it is no such fraction.

        Example:
            >>> Share.parse("2/4").of(["a", "b", "c", "d", "e", "f"])
            ['b', 'f']
        """
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"share: got '{text}', wanted which part of how many, from 1/N to N/N, such as 2/4.")
        return cls(int(match[1]), int(match[2]))

    def of(self, batches: Sequence[T]) -> list[T]:
        """Return this share's part."""
        return list(batches[self.number - 1 :: self.count])


def missing_everywhere(jobs: Sequence[PromptJob], images: Mapping[PromptJob, np.ndarray]) -> list[PromptJob]:
    """Return the jobs whose picture some process has not found; the same list in every process."""
    known = processes().everywhere(torch.tensor([job in images for job in jobs]))
    return [job for job, found in zip(jobs, known.tolist(), strict=True) if not found]


def own_batches(batches: Sequence[T]) -> list[T]:
    """Return the batches that this process draws."""
    team = processes()
    return Share(team.rank + 1, team.count).of(batches)


def merged(
    batches: Sequence[Sequence[PromptJob]], images: Mapping[PromptJob, np.ndarray], *, shape: tuple[int, int, int]
) -> dict[PromptJob, np.ndarray]:
    """Return the pictures of all batches, from whichever process has drawn them.

    Args:
        batches: All batches, the same in every process.
        images: This process's pictures.
        shape: Of a picture.

    Returns:
        The pictures of the batches; none with one process, which has them.
    """
    team = processes()
    if team.count == 1 or not batches:
        return {}
    dealt = [[job for batch in Share(i + 1, team.count).of(batches) for job in batch] for i in range(team.count)]
    own = [images[job] for job in dealt[team.rank]]
    rows = torch.from_numpy(np.stack(own)) if own else torch.empty((0, *shape), dtype=torch.uint8)
    everything = team.gather(rows.to(team.device), [len(jobs) for jobs in dealt]).cpu().numpy()
    return dict(zip([job for jobs in dealt for job in jobs], everything, strict=True))
