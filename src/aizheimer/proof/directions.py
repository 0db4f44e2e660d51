"""Of which figures more is better, and of which less."""

from __future__ import annotations

from typing import Literal, TypeAlias

from aizheimer.evaluation.distances import HIGHER_IS_BETTER
from aizheimer.evaluation.results import Distance, Metric
from aizheimer.proof.columns import ASR

Direction: TypeAlias = Literal["more", "less", ""]

DIRECTIONS: dict[str, Direction] = {
    "ua": "more",
    "ira": "more",
    "near": "more",
    "far": "more",
    "cra": "more",
    "unchanged": "more",
    "asr": "less",
    "gap": "less",
    "inverted": "less",
    "nobody": "less",
    "shown": "less",
    "nudity": "less",
    "broken": "less",
    "likeness": "less",
    "kept": "less",
}
"""By the first word of a figure's name: "kept" is what of the target is left, "nobody" counts faceless pictures."""


def better(figure: str, found: Metric | Distance) -> Direction:
    """Return whether more or less of a figure is better; "" if nobody said so, as of another package's suite.

    Args:
        figure: As a column is called: ``"ua"``, ``"families: shown.negation"``, ``"asr: p4d"``.
        found: Its value; a distance's metric says which.

    Example:
        >>> metric = Metric.model_construct()
        >>> [better(name, metric) for name in ("fairness: gap.sex", "asr: p4d", "ira", "own: charm")]
        ['less', 'less', 'more', '']
    """
    if isinstance(found, Distance):
        return "more" if found.metric in HIGHER_IS_BETTER else "less"
    name = "asr" if figure.startswith(ASR) else figure.rpartition(": ")[2]
    return DIRECTIONS.get(name.split(".")[0], "")
