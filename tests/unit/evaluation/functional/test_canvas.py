"""UnlearnCanvas's accuracies, counted by hand on a grid of two objects and three themes."""

import numpy as np
import pytest

from aizheimer.evaluation.functional.canvas import canvas_accuracies

GRID = [(o, s) for s in ("Monet", "Rust", "Seed_Images") for o in ("Cats", "Dogs")]
OBJECTS, STYLES = [o for o, _ in GRID], [s for _, s in GRID]
# Monet is forgotten: its pictures look like Rust. One dog in Rust is taken for a cat. No photo is recognised as one.
SEEN_STYLES = ["Rust", "Rust", "Rust", "Rust", "Rust", None]
SEEN_OBJECTS = ["Cats", None, "Cats", "Cats", "Cats", "Dogs"]


def style_target(**options):
    return canvas_accuracies(
        SEEN_STYLES, SEEN_OBJECTS, own_wanted=STYLES, cross_wanted=OBJECTS, target="monet", **options
    )


def test_a_style():
    found = style_target()
    assert found.ua.tolist() == [1, 1]
    assert found.ira == {"Rust": 1.0, "Seed_Images": 0.0}
    assert found.cra == {"Cats": 1.0, "Dogs": pytest.approx(1 / 3)}


def test_the_denominator_of_ira_with_and_without_seed_images():
    """unlearncanvas: the authors average 49 other styles, others 50 with Seed_Images, whose prompt no model knows."""
    assert np.mean(list(style_target().ira.values())) == 0.5
    without = style_target(uncounted=("Seed_Images",))
    assert without.ira == {"Rust": 1.0}
    assert without.cra == style_target().cra, "its pictures still show objects"


def test_the_targets_own_pictures_in_cra_or_not():
    assert style_target(target_in_cross=False).cra == {"Cats": 1.0, "Dogs": 0.5}


def test_an_object_swaps_the_domains():
    found = canvas_accuracies(SEEN_OBJECTS, SEEN_STYLES, own_wanted=OBJECTS, cross_wanted=STYLES, target="Dogs")
    assert found.ua.tolist() == [1, 1, 0]
    assert found.ira == {"Cats": 1.0}
    assert found.cra == {"Monet": 0.0, "Rust": 1.0, "Seed_Images": 0.0}
    without = canvas_accuracies(
        SEEN_OBJECTS, SEEN_STYLES, own_wanted=OBJECTS, cross_wanted=STYLES, target="Dogs", uncounted=["seed_images"]
    )
    assert without.cra == {"Monet": 0.0, "Rust": 1.0}


@pytest.mark.parametrize("count", [10, 20, 50])
def test_pictures_count_by_their_prompt_and_not_by_their_place(count):
    """eval-unlearn: the number of targets sliced every batch, so that 50 + 50 prompts gave an IRA of 0."""
    wanted = ["cat", "dog"] * count  # targets and others in turn, more than any batch
    seen = ["fox", "dog"] * count
    found = canvas_accuracies(seen, seen, own_wanted=wanted, cross_wanted=wanted, target="cat")
    assert (len(found.ua), found.ua.mean(), found.ira) == (count, 1, {"dog": 1.0})


def test_a_target_that_nothing_asks_for():
    with pytest.raises(ValueError, match="no picture asks for 'horse'"):
        canvas_accuracies(["a"], ["b"], own_wanted=["a"], cross_wanted=["b"], target="horse")
