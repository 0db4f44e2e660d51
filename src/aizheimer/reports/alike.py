"""Rows of a bench that may be averaged: only those whose numbers were measured alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from aizheimer.evaluation.distances import MUST_AGREE, check_comparable

Row: TypeAlias = Mapping[str, Any]

EXTRACTOR = ".extractor"
"""Ends the column that tells a distance, such as FID, from a share."""

OF_A_TARGET = ("reference",)
"""What differs from target to target by its nature: each has other concepts to be kept, and other pictures of them."""


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows whose distances must not be averaged: within one table, and more strictly for one target.

    A column that a row does not have, as rows of before it was written, is not held against it.

    Args:
        rows: Of a bench; failed jobs have no figures.

    Raises:
        InputError: One line that names two rows and what differs.
    """
    done = [row for row in rows if row["status"] == "done"]
    for figure in distances(done):
        of_all = [field for field in MUST_AGREE if field not in OF_A_TARGET]
        check_comparable(figure, _computed(figure, done), fields=of_all)
        for concept in dict.fromkeys(row["concept"] for row in done):
            own = [row for row in done if row["concept"] == concept]
            check_comparable(figure, _computed(figure, own), fields=OF_A_TARGET)


def distances(rows: Sequence[Row]) -> list[str]:
    """Return the columns that are distances: they name their feature extractor.

    Example:
        >>> distances([{"ua": 1.0, "quality.kid": 0.1, "quality.kid.extractor": "clip"}])
        ['quality.kid']
    """
    names = dict.fromkeys(name for row in rows for name in row if name.endswith(EXTRACTOR) and row[name])
    return [name.removesuffix(EXTRACTOR) for name in names]


def _computed(figure: str, rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    for row in rows:
        name = f"{row['method']}, {row['concept']}, seed {row['seed']}"
        yield name, {field: row.get(f"{figure}.{field}") for field in MUST_AGREE}
