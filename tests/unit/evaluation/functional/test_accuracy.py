import pytest
from hypothesis import given
from hypothesis import strategies as st

from aizheimer.evaluation.functional.accuracy import accuracy_by_concept, forgotten, matches

names = st.sampled_from(["cat", "dog", "santa claus"])


def test_none_of_these_is_never_a_match():
    assert matches([None, None], ["none", "cat"]).tolist() == [0, 0]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="shorter"):
        matches(["cat", "cat"], ["cat"])


@given(st.lists(st.tuples(st.one_of(st.none(), names), names), min_size=1))
def test_forgotten_is_the_complement_of_being_named(rows):
    seen = [row[0] for row in rows]
    assert (forgotten(seen, "cat") + matches(seen, ["cat"] * len(seen)) == 1).all()


@given(st.lists(st.tuples(st.one_of(st.none(), names), names), min_size=1), st.integers(2, 4))
def test_repeating_every_picture_changes_no_accuracy(rows, times):
    seen, wanted = zip(*rows, strict=True)
    assert accuracy_by_concept(seen * times, wanted * times) == pytest.approx(accuracy_by_concept(seen, wanted))
