"""Measure predictions on examples that are never trained on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.data.sources import Draw
from aizheimer.data.words import Embeddings
from aizheimer.engine.batch_shares import predict

MONITOR_BATCH = 32
"""Held-out examples that go through the denoiser at a time."""
GRADIENT_OF = 8
"""Held-out examples whose gradient is taken for the log: as many as a batch of a loss that retains has by default."""


@torch.no_grad()
def squared_errors(backbone: Backbone, draw: Draw, embeddings: Embeddings) -> tuple[float, float]:
    r"""Return :math:`\sum \lVert s - y\rVert^2` and :math:`\sum \lVert y\rVert^2` over a draw.

    Args:
        backbone: Predicts :math:`s`.
        draw: The examples; their targets are :math:`y`.
        embeddings: Encoded prompts, or live ones; ``draw.prompt_index`` counts in it.

    Raises:
        ValueError: If the draw has no targets.
    """
    if draw.target is None:
        raise ValueError("held-out examples need targets, the teacher's predictions for instance")
    error = norm = 0.0
    for rows in batches(len(draw)):
        part = rows_of(draw, rows)
        student = predict(backbone, part.x_t, part.t, embeddings[part.prompt_index].to(part.x_t))
        target = draw.target[rows].to(student)
        error += float((student - target).double().square().sum())
        norm += float(target.double().square().sum())
    return error, norm


def relative_error(backbone: Backbone, draw: Draw, embeddings: Embeddings) -> float:
    r"""Return :math:`\lVert s - y\rVert^2 / \lVert y\rVert^2`; with a teacher's predictions as y, the retention drift.

    The arguments are those of `squared_errors`.
    """
    error, norm = squared_errors(backbone, draw, embeddings)
    return error / norm


def retention_errors(backbone: Backbone, draw: Draw, embeddings: Embeddings, *, rows: int) -> Iterator[Tensor]:
    r"""Yield :math:`\lVert s - y\rVert^2` of the first `GRADIENT_OF` examples, in the autograd graph.

    Args:
        backbone: Predicts :math:`s`.
        draw: The examples; their targets are :math:`y`.
        embeddings: Encoded prompts, or live ones; ``draw.prompt_index`` counts in it.
        rows: Examples at a time, so that a gradient takes no more memory than a training batch's.
    """
    for some in batches(min(len(draw), GRADIENT_OF), rows):
        part = rows_of(draw, slice(some.start, min(some.stop, GRADIENT_OF)))
        student = predict(backbone, part.x_t, part.t, embeddings[part.prompt_index].to(part.x_t))
        yield (student - part.answer.to(student)).float().square().sum()


def batches(count: int, rows: int | None = None) -> list[slice]:
    """Return slices that cover ``count`` examples, ``rows`` (None: `MONITOR_BATCH`) at a time."""
    rows = rows or MONITOR_BATCH
    return [slice(start, start + rows) for start in range(0, count, rows)]


def rows_of(draw: Draw, rows: slice) -> Draw:
    """Return some examples of a draw."""
    target = None if draw.target is None else draw.target[rows]
    return Draw(x_t=draw.x_t[rows], t=draw.t[rows], prompt_index=draw.prompt_index[rows], target=target)
