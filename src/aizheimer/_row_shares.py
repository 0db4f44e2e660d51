r"""A batch whose rows are computed by several processes, and put together again, in the autograd graph.

Every process has the whole batch, computes its own rows, and gets all results: so a loss is the same number everywhere,
whatever it does across the batch, and a random number that a term draws is the same too. With P processes, row i's
result reaches the loss through the one process that computed it. `RowShares.whole` hands that process P times the
gradient, and averaging parameters' gradients over the processes gives

.. math:: \frac1P \sum_p P\,\frac{\partial L}{\partial\theta}\Big|_{\text{rows of }p}
          = \frac{\partial L}{\partial\theta}

while a path that does not go through the shared rows (a penalty on the weights) is in every process whole, and its mean
is itself. What enters the rows and asks for gradients (prompts that are being trained) gets them whole again, by
`RowShares.mine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aizheimer._processes import processes

_together: ContextVar[bool] = ContextVar("_together", default=False)
_weights: ContextVar[bool] = ContextVar("_weights", default=False)


@contextmanager
def rows_shared() -> Iterator[None]:
    """Share rows inside the context, which all processes enter and go through alike.

    Outside of it nothing is shared: what one process finds in a cache and another computes must not wait for the other.
    """
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)


@contextmanager
def weights_shared() -> Iterator[None]:
    """Say that each process holds a share of the denoiser's weights inside the context."""
    token = _weights.set(True)
    try:
        yield
    finally:
        _weights.reset(token)


def shares_weights() -> bool:
    """Whether all processes must run the denoiser equally often, since none has all of its weights."""
    return _weights.get()


@dataclass(frozen=True, kw_only=True)
class RowShares:
    """Which rows of a batch each process computes.

    Args:
        rows: Row numbers of each process, in the order of the processes.
        rank: This process.
    """

    rows: tuple[Tensor, ...]
    rank: int

    @classmethod
    def of(cls, *groups: int) -> RowShares | None:
        """Deal the rows of a batch out.

        Args:
            *groups: Sizes of the parts that a batch is made of, in its order; every process gets some of each.

        Returns:
            The shares, or None if there is nothing to share: one process, no `rows_shared` around, or fewer rows in a
            part than processes, and then every process computes them all.
        """
        team = processes()
        if team.count == 1 or not _together.get() or min(groups) < team.count:
            return None
        parts = torch.arange(sum(groups)).split(groups)
        rows = tuple(torch.cat([part[rank :: team.count] for part in parts]) for rank in range(team.count))
        return cls(rows=rows, rank=team.rank)

    @property
    def own(self) -> Tensor:
        """This process's row numbers."""
        return self.rows[self.rank]

    def mine(self, batch: Tensor) -> Tensor:
        """Return this process's rows of a batch; gradients come back for all rows, those of other processes too."""
        return _Mine.apply(batch, self) if batch.requires_grad else batch[self.own.to(batch.device)]

    def whole(self, rows: Tensor) -> Tensor:
        """Return the whole batch from the rows that each process has computed."""
        return _Whole.apply(rows, self)

    def gathered(self, rows: Tensor) -> Tensor:
        """Put all processes' rows into the batch's order, without gradients."""
        inverse = torch.cat(self.rows).argsort().to(rows.device)
        return processes().gather(rows.contiguous(), [len(own) for own in self.rows])[inverse]


class _Mine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, batch: Tensor, shares: RowShares) -> Tensor:
        ctx.shares = shares
        return batch[shares.own.to(batch.device)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Each row's gradient was handed out times the number of processes, to be averaged; here all of it comes home.
        return ctx.shares.gathered(gradients[0]) / len(ctx.shares.rows), None


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: RowShares) -> Tensor:
        ctx.shares = shares
        return shares.gathered(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        own = ctx.shares.own.to(gradients[0].device)
        return gradients[0][own] * len(ctx.shares.rows), None
