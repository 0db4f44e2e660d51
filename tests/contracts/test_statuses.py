"""A method is called stable if, and only if, a parity test proves it and the comparison has its whole row."""

import functools
import json
from collections import Counter

import pytest

from aizheimer._registry import METHODS
from tests.docs.snippets import REPOSITORY

PARITY = {"aizheimer": "attention_losses", "forget-me-not": "attention_losses"}
"""Where a method's equations are proven, if not in a file of its own name."""
TARGETS = 8


@functools.cache
def whole_rows() -> set[str]:
    cells = json.loads((REPOSITORY / "benchmarks" / "results" / "methods.json").read_text())["cells"]
    done = Counter(cell["method"] for cell in cells if "error" not in cell)
    return {method for method, count in done.items() if count == TARGETS}


@pytest.mark.parametrize("name", METHODS.entries)
def test_stable_means_proven_and_measured(name):
    parity = REPOSITORY / "tests" / "parity" / f"test_{PARITY.get(name, name).replace('-', '_')}.py"
    earned = parity.is_file() and name in whole_rows()
    assert METHODS.get(name).info.status == ("stable" if earned else "experimental")
