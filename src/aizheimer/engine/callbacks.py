"""What a caller may hear while an edit is being made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


def _ignore(*_: Any) -> None:
    """Hear nothing."""


def _never() -> bool:
    """Go on."""
    return False


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that the data stage and the training loop call; each one is optional.

    Whatever they raise ends the run there and then, without an edit.

    Args:
        on_step: Called after every optimiser step with its history row (``step``, ``steps``, ``loss``, ``losses``,
            ``parts``, ``lr``, ``grad_norm``, ``seconds``; on every ``monitor_every``-th step ``cosine``, that of the
            gradients of erasing and of retaining, the held-out retain error's where no loss retains).
        on_monitor: Called after every look at the held-out set with its history row (``step``, ``steps``,
            ``attention_mass``, ``mass_ratio``, ``retention_drift``, ``layers``, ``seconds``).
        on_data: Called once, before training, with what will be trained on (``forget_prompts``, ``retain_prompts``,
            ``neighbours`` as ``[label, similarity]`` pairs, ``kept``, ``layers``, ``parameters``).
        on_solved: Called by a closed form with what it found (``residual``, ``drift``; see
            `aizheimer.methods._closed_form.outcome`).
        on_progress: Called with ``(stage, done, total)`` during long preparations.
        should_stop: Asked after every optimiser step; true ends training there, and the best state becomes the edit.

    Example:
        >>> heard = []
        >>> Callbacks(on_step=heard.append).on_step({"step": 1})
        >>> heard
        [{'step': 1}]
    """

    on_step: Callable[[Row], None] = _ignore
    on_monitor: Callable[[Row], None] = _ignore
    on_data: Callable[[Row], None] = _ignore
    on_solved: Callable[[Row], None] = _ignore
    on_progress: Callable[[str, int, int], None] = _ignore
    should_stop: Callable[[], bool] = _never
