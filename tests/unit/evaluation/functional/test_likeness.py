"""Likeness measures by hand: what each sees and what it is blind to."""

import numpy as np
import pytest

from aizheimer.evaluation.functional.likeness import MEASURES, colour_likeness, layout_likeness, shape_likeness


def square(top, left, *, colour=(0, 0, 0), size=32, edge=12):
    picture = np.full((1, size, size, 3), 255, np.uint8)
    picture[:, top : top + edge, left : left + edge] = colour
    return picture


def test_colour_ignores_the_place_and_sees_amounts():
    assert colour_likeness(square(2, 2), square(15, 17))[0] == 1
    # 144 of 1024 pixels are black in one and red in the other.
    assert colour_likeness(square(2, 2), square(2, 2, colour=(255, 0, 0)))[0] == pytest.approx(1 - 144 / 1024)


def test_shape_ignores_colour_and_sees_the_place():
    dark, grey = square(4, 4), square(4, 4, colour=(60, 60, 60))
    assert shape_likeness(dark, grey)[0] == pytest.approx(1)
    assert shape_likeness(dark, square(20, 20))[0] < 0.05
    assert 0.6 < shape_likeness(dark, square(5, 4))[0] < 1


def test_shape_of_flat_pictures():
    flat = np.full((1, 32, 32, 3), 9, np.uint8)
    assert shape_likeness(flat, square(4, 4))[0] == 0
    assert shape_likeness(flat, flat)[0] == 1


def test_layout_by_hand():
    half = np.zeros((1, 32, 32, 3), np.uint8)
    half[:, :16] = 255
    assert layout_likeness(half, np.zeros_like(half))[0] == pytest.approx(0.5)
    assert layout_likeness(half, half[:, ::-1])[0] == pytest.approx(0)
    fine = np.zeros((1, 32, 32, 3), np.uint8)
    fine[:, ::2] = 254
    assert layout_likeness(fine, np.full_like(fine, 127))[0] == pytest.approx(1), "detail within a cell is not layout"


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_all_of_them(measure):
    a = np.random.default_rng(0).integers(0, 256, (5, 30, 34, 3), dtype=np.uint8)
    b = np.random.default_rng(1).integers(0, 256, (5, 30, 34, 3), dtype=np.uint8)
    assert measure(a, a) == pytest.approx(np.ones(5))
    assert measure(a, b) == pytest.approx(measure(b, a))
    assert ((measure(a, b) >= 0) & (measure(a, b) < 1)).all()
    assert measure(a, b)[2] == pytest.approx(measure(a[2:3], b[2:3])[0])
    with pytest.raises(ValueError, match="wanted equal uint8"):
        measure(a, b[:4])
    with pytest.raises(ValueError, match="wanted equal uint8"):
        measure(a / 255, b / 255)
