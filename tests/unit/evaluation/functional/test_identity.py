"""Accuracy of identity by both denominators, counted by hand."""

import numpy as np
import pytest

from aizheimer.evaluation.functional.identity import harmonic_celebrity, identity_accuracy


def test_by_hand():
    names = ["ann", "ann", "bob", None, "ann"]
    found = identity_accuracy(names, ["ann"] * 5, has_face=np.array([1, 0, 1, 0, 1], bool))
    assert found.with_face == pytest.approx(2 / 3)
    assert found.over_all == pytest.approx(2 / 5)
    assert found.no_face == pytest.approx(2 / 5)


def test_with_no_face_at_all_there_is_no_accuracy_to_be_proud_of():
    found = identity_accuracy([None, None], ["ann"] * 2, has_face=np.zeros(2, bool))
    assert found.with_face is None
    assert found.no_face == 1.0


def test_lengths_that_differ():
    with pytest.raises(ValueError, match="wanted as many"):
        identity_accuracy(["ann"], ["ann"], has_face=np.ones(2, bool))
    with pytest.raises(ValueError, match="and some"):
        identity_accuracy([], [], has_face=np.ones(0, bool))


def test_the_harmonic_mean_by_hand():
    # ACC_e 0.2, ACC_s 0.6: 2 / (1/0.8 + 1/0.6) = 2 / (35/12) = 24/35.
    assert harmonic_celebrity(0.2, 0.6) == pytest.approx(24 / 35)
    assert harmonic_celebrity(1.0, 0.9) == 0.0
    assert harmonic_celebrity(0.0, 0.0) == 0.0
