"""Rows of a bench that may be averaged: only those whose numbers were measured alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from aizheimer.evaluation.distances import MUST_AGREE, check_comparable

Row: TypeAlias = Mapping[str, Any]

EXTRACTOR = ".extractor"
"""Ends the column that tells a distance, such as FID, from a share."""
JUDGE = ".judge"

OF_A_TARGET = {"reference": MUST_AGREE["reference"]}
"""What differs from target to target by its nature: each has other concepts to be kept, and other pictures of them."""


OF_ALL = {field: words for field, words in MUST_AGREE.items() if field not in OF_A_TARGET}
JUDGED = {"judge": "another judge"}


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows that must not be averaged: distances within one table, and more strictly for one target.

    Shares of one target must be by one judge; another kind of target has another judge.

    A column that a row does not have, as rows of before it was written, is not held against it.

    Args:
        rows: Of a bench; failed jobs have no figures.

    Raises:
        InputError: One line that names two rows and what differs.
    """
    done = [row for row in rows if row["status"] == "done"]
    for figure in stating(done, EXTRACTOR):
        check_comparable(figure, _stated(figure, done, OF_ALL), fields=OF_ALL)
    for concept in dict.fromkeys(row["concept"] for row in done):
        own = [row for row in done if row["concept"] == concept]
        for suffix, fields in ((EXTRACTOR, OF_A_TARGET), (JUDGE, JUDGED)):
            for figure in stating(own, suffix):
                check_comparable(figure, _stated(figure, own, fields), fields=fields)


def stating(rows: Sequence[Row], suffix: str) -> list[str]:
    """Return the columns beside which a row has one that says more: its extractor, its judge.

    Example:
        >>> stating([{"ua": 1.0, "quality.kid": 0.1, "quality.kid.extractor": "clip"}], ".extractor")
        ['quality.kid']
    """
    names = dict.fromkeys(name for row in rows for name in row if name.endswith(suffix) and row[name] is not None)
    return [name.removesuffix(suffix) for name in names]


def _stated(figure: str, rows: Sequence[Row], fields: Iterable[str]) -> Iterator[tuple[str, Row]]:
    for row in rows:
        name = f"{row['method']}, {row['concept']}, seed {row['seed']}"
        yield name, {field: row.get(f"{figure}.{field}") for field in fields}
