"""Two tiers: `make test` leaves out what is marked `long`; `make test LONG=1`, which CI runs, leaves out nothing."""

from collections.abc import Iterable
from typing import Any

import pytest


def all_but(quick: Iterable[str], names: Iterable[str]) -> list[Any]:
    """Return parameters for ``names`` of which those not in ``quick`` wait for `make test LONG=1`.

    Raises:
        ValueError: for a name in ``quick`` that is not among ``names``: it would be tested by nobody.
    """
    names, quick = tuple(names), set(quick)
    if unknown := quick - set(names):
        raise ValueError(f"got {sorted(unknown)}, wanted names out of {names}")
    return [name if name in quick else pytest.param(name, marks=pytest.mark.long) for name in names]
