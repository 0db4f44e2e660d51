"""A gradient against finite differences, along one direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor


def check_slope(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    directions: Sequence[Tensor],
    *,
    step: float,
    rel: float,
    least: float = 0.0,
) -> None:
    """Compare the gradient of a loss with its values a step to both sides; parameters are left a step behind.

    Args:
        loss: Computes it anew, the same every time.
        parameters: What it is a function of, in double precision.
        directions: Where to, in the shape of each.
        step: Of the finite differences.
        rel: How far the two may differ, as a share.
        least: The slope must be steeper than this, for flat ones agree in anything.
    """
    gradients = torch.autograd.grad(loss(), list(parameters))
    slope, values = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True)), []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(sign * step * direction)
            values.append(float(loss()))
    expected = (values[0] - values[1]) / (2 * step)
    assert abs(expected) > least
    assert slope == pytest.approx(expected, rel=rel)
