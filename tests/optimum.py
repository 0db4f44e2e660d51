"""Compare what a closed form found with an optimum that was found without its formula."""

from __future__ import annotations

import torch


def check_change(found: torch.Tensor, wanted: torch.Tensor, *, tolerance: float = 1e-6) -> None:
    """Compare changes of a weight: no entry may be off by more than a millionth of the largest.

    An edit holds changes themselves, rounded to float32: that is 6e-8 of each.
    """
    size = float(wanted.abs().max())
    assert size > 0
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance * size)
