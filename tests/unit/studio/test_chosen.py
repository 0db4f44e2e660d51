"""The sliders under Combine: what a visitor has set is not lost when an edit comes or goes."""

from aizheimer.studio.chosen import STACKED, Sliders

MANY = [f"edit-{number}" for number in range(10)]


def test_at_first_the_newest_have_sliders():
    sliders = Sliders().follow(MANY, old=[])
    assert list(sliders.strengths) == MANY[:STACKED]
    assert set(sliders.strengths.values()) == {0.0}


def test_a_strength_stays_with_its_edit_when_another_comes_or_goes():
    sliders = Sliders.read(["cat", "dog"], [0.5, -1.0, 0.7])
    assert dict(sliders.strengths) == {"cat": 0.5, "dog": -1.0}, "what is hidden does not count"
    after = sliders.follow(["fox", "cat", "dog"], old=["cat", "dog"])
    assert dict(after.strengths) == {"fox": 0.0, "cat": 0.5, "dog": -1.0}
    assert dict(after.follow(["fox", "dog"], old=["fox", "cat", "dog"]).strengths) == {"fox": 0.0, "dog": -1.0}


def test_a_new_edit_takes_the_place_of_one_at_nothing_and_of_no_other():
    names = MANY[1 : STACKED + 1]
    sliders = Sliders.read(names, [1.0] * (STACKED - 1) + [0.0])
    after = sliders.follow(MANY, old=MANY[1:])
    assert list(after.strengths) == [MANY[0], *names[:-1]]
    full = Sliders.read(names, [1.0] * STACKED)
    assert full.follow(MANY, old=MANY[1:]) == full


def test_what_a_visitor_chose_stays_chosen():
    sliders = Sliders.read(["edit-9", "edit-2"], [0.5, 0.0])
    assert dict(sliders.choose(["edit-2", "edit-7", "edit-9"]).strengths) == {"edit-2": 0, "edit-7": 0, "edit-9": 0.5}
    assert dict(sliders.follow(MANY, old=MANY).strengths) == {"edit-2": 0, "edit-9": 0.5}
    assert len(sliders.choose(MANY).strengths) == STACKED


def test_an_empty_field_of_a_slider_is_nothing():
    assert dict(Sliders.read(["cat"], [None]).strengths) == {"cat": 0.0}
