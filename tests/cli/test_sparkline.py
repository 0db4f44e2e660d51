import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aizheimer.cli.sparkline import sparkline


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([3.0, 3.0, 3.0], "▁▁▁"),
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([1.0, 0.0], "█▁"),
        ([0.0, math.nan, 1.0], "▁ █"),
        ([math.inf], " "),
        ([-8.0, -1.0], "▁█"),
    ],
)
def test_values_become_blocks(values, drawn):
    assert sparkline(values) == drawn


def test_only_the_last_values_are_drawn_and_scaled():
    assert sparkline([1000.0, 0.0, 1.0], width=2) == "▁█"


@given(st.lists(st.floats(-1e6, 1e6), max_size=50))
def test_higher_values_never_draw_lower(values):
    drawn = sparkline(values, width=50)
    assert len(drawn) == len(values)
    pairs = sorted(zip(values, drawn, strict=True))
    assert [block for _, block in pairs] == sorted(drawn)
