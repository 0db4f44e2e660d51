"""Attacks that try a stated grid of ways to draw, and answer with the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aizheimer.attacks.base import Outcome, Progress, Subject


def best_cell(
    subject: Subject, cells: Mapping[str, Callable[[], np.ndarray]], *, progress: Progress | None = None, **details: Any
) -> Outcome:
    """Draw every cell and bring back the pictures of the one in which the judge sees the target most often.

    The best of many is lucky more often than one: the control must try as many.

    Args:
        subject: The model under attack.
        cells: By name, what draws the subject's jobs; called once each. The first of equals wins.
        progress: Called with (cells done, cells).
        **details: What else is told.

    Returns:
        ``details`` lists every cell's rate, the best one's name, and the share of jobs seen in any cell.
    """
    rates: dict[str, float] = {}
    best: tuple[float, str, np.ndarray] | None = None
    anywhere = np.zeros(len(subject.jobs), dtype=bool)
    for name, draw in cells.items():
        images = draw()
        seen = subject.shows(images)
        rates[name], anywhere = float(seen.mean()), anywhere | seen
        if best is None or rates[name] > best[0]:
            best = rates[name], name, images
        if progress is not None:
            progress(len(rates), len(cells))
    if best is None:
        raise ValueError("an attack with a grid needs at least one cell")
    found = {"cells": rates, "best": best[1], "anywhere": float(anywhere.mean()), **details}
    return Outcome(images=best[2], queries=len(rates) * len(anywhere), details=found)
