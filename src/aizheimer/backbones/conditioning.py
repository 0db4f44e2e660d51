"""All that a denoiser is told of prompts, in one object, whatever the model's family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aizheimer.errors import ModelError

TEXT_BATCH = 32
"""Texts that several encoders read at a time."""

_TOKENS, _POOLED = "tokens", "pooled"


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Encoded prompts, one a row: what `Backbone.condition` makes and `Backbone.predict` reads.

    It is handled as a tensor of rows is: indexed, moved, counted; `joined` and `expanded` put several together.

    Args:
        tokens: (prompts, tokens, dim) the rows that attention reads.
        pooled: (prompts, width) one vector for each whole prompt, for families whose denoiser reads one; else None.

    Example:
        >>> told = Conditioning(torch.zeros(3, 77, 768))
        >>> len(told), told[torch.tensor([0, 2])].tokens.shape
        (3, torch.Size([2, 77, 768]))
    """

    tokens: Float[Tensor, "prompts tokens dim"]
    pooled: Float[Tensor, "prompts width"] | None = None

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.tokens)

    def __getitem__(self, index: Tensor | slice, /) -> Conditioning:
        """Return the prompts of these numbers."""
        return Conditioning(self.tokens[index], None if self.pooled is None else self.pooled[index])

    def to(self, *where: torch.device | torch.dtype | Tensor) -> Conditioning:
        """Return the same on another device, in another number format, or as a tensor is."""
        pooled = None if self.pooled is None else self.pooled.to(*where)  # type: ignore[arg-type]
        return Conditioning(self.tokens.to(*where), pooled)  # type: ignore[arg-type]

    def cpu(self) -> Conditioning:
        """Return the same on the CPU."""
        return self.to(torch.device("cpu"))

    def silenced(self, prompts: Bool[Tensor, " prompts"]) -> Conditioning:
        """Return the same with zeros in the place of some prompts, which take no gradient."""
        rows = prompts.to(self.tokens.device)
        pooled = None if self.pooled is None else self.pooled.masked_fill(rows[:, None], 0)
        return Conditioning(self.tokens.masked_fill(rows[:, None, None], 0), pooled)

    def with_tokens(self, tokens: Tensor) -> Conditioning:
        """Return other rows under the same pooled vectors."""
        return Conditioning(tokens, self.pooled)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parts by name, to be stored; `from_tensors` reads them back."""
        parts = {_TOKENS: self.tokens, _POOLED: self.pooled}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Conditioning:
        """Return what `tensors` returned."""
        return cls(tensors[_TOKENS], tensors.get(_POOLED))


Conditions: TypeAlias = Conditioning | Tensor
"""Conditioning, or its rows alone where the denoiser reads nothing else, as in Stable Diffusion 1 and 2."""


def as_conditioning(told: Conditions) -> Conditioning:
    """Return rows alone as conditioning without pooled vectors, and conditioning as it is."""
    return told if isinstance(told, Conditioning) else Conditioning(told)


def joined(parts: Sequence[Conditions]) -> Conditioning:
    """Put prompts one after the other.

    Raises:
        ModelError: If some have pooled vectors and others have not.
    """
    told = [as_conditioning(part) for part in parts]
    pooled = [part.pooled for part in told if part.pooled is not None]
    if pooled and len(pooled) != len(told):
        raise ModelError(
            f"conditioning: {len(told) - len(pooled)} of {len(told)} parts have no pooled vector, wanted one of every "
            "prompt; make them with Backbone.condition."
        )
    return Conditioning(torch.cat([part.tokens for part in told]), torch.cat(pooled) if pooled else None)


def encoded_in_batches(
    texts: Sequence[str], encode: Callable[[list[str]], Conditioning], *, size: int = TEXT_BATCH
) -> Conditioning:
    """Encode texts a batch at a time, so that a long list needs no more memory than a short one.

    Args:
        texts: One or more.
        encode: Encodes a batch.
        size: Texts in a batch.
    """
    return joined([encode(list(texts[start : start + size])) for start in range(0, len(texts), size)])


def expanded(told: Conditions, count: int) -> Conditioning:
    """Repeat a single prompt ``count`` times, without copying it."""
    one = as_conditioning(told)
    pooled = None if one.pooled is None else one.pooled.expand(count, -1)
    return Conditioning(one.tokens.expand(count, -1, -1), pooled)


def pooled_of(told: Conditions, *, family: str) -> Float[Tensor, "prompts width"]:
    """Return the pooled vectors.

    Raises:
        ModelError: If there are none: rows alone do not say what this family's denoiser reads.
    """
    pooled = as_conditioning(told).pooled
    if pooled is None:
        raise ModelError(
            f"{family}: got text rows without a pooled vector, which its denoiser reads too; encode the prompts with "
            "Backbone.condition."
        )
    return pooled
