"""A step's losses as the numbers that go into the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aizheimer.engine.problem import Loss


def numbers(loss: Loss) -> dict[str, Any]:
    """Return a loss's value, weight and parts."""
    parts = {name: float(part) for name, part in loss.parts.items()}
    return {"value": float(loss.value.detach()), "weight": loss.weight, "parts": parts}


def mean(batches: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Average the logged losses over a step's batches."""
    count = len(batches)
    return {
        name: {
            "value": sum(batch[name]["value"] for batch in batches) / count,
            "weight": first["weight"],
            "parts": {part: sum(batch[name]["parts"][part] for batch in batches) / count for part in first["parts"]},
        }
        for name, first in batches[0].items()
    }
