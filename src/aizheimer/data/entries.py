"""Entries of a bank that are read or made only when they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Entries(Protocol):
    """Entries that are asked for by their numbers: a tensor, or something that makes them when they are asked for.

    A bank may be a mapped file that is larger than the memory; what is made of all of it at once is not mapped.
    """

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Return the entries of these numbers."""
        ...


@dataclass(frozen=True)
class Joined:
    """Tensors one after the other, each read where it is.

    Args:
        parts: At least one, alike but for their lengths.

    Example:
        >>> Joined((torch.tensor([1, 2]), torch.tensor([3])))[torch.tensor([2, 0])]
        tensor([3, 1])
    """

    parts: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return the entries of all parts."""
        return sum(map(len, self.parts))

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the entries of these numbers, counted through all parts."""
        found = self.parts[0].new_empty((len(index), *self.parts[0].shape[1:]))
        start = 0
        for part in self.parts:
            own = (index >= start) & (index < start + len(part))
            found[own] = part[index[own] - start]
            start += len(part)
        return found
