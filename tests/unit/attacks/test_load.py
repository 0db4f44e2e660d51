"""An attack's parameters are read in one place, and every mistake is told."""

import pytest

from aizheimer.attacks.load import load_attack, load_attacks
from aizheimer.attacks.relearn import Relearn
from aizheimer.errors import InputError, RecipeError


def test_names_and_parameters():
    assert load_attack("relearn", ["weights=full", "looks=[0, 3]", "lr=0.5"]) == Relearn(
        weights="full", looks=(0, 3), lr=0.5
    )
    assert load_attack("noise_inversion").name == "noise-inversion"


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("relern", [], r"unknown attack 'relern'. Did you mean 'relearn'\?"),
        ("relearn", ["step=3"], r"attack 'relearn': unknown key 'step'. Did you mean 'steps'"),
        ("relearn", ["steps"], "'steps' is not key=value"),
        ("relearn", ["weights=lor"], r"Did you mean 'lora'\?"),
        ("relearn", ["steps=0", "pictures=0"], "2 problems: .*pictures: got 0.*steps: got 0"),
    ],
)
def test_mistakes(name, words, said):
    with pytest.raises(RecipeError, match=said):
        load_attack(name, words)


def test_with_several_a_parameter_says_whose_it_is():
    both = load_attacks(["relearn", "noise-inversion"], ["relearn.lr=0.5", "noise_inversion.strength=0.5"])
    assert (both[0].lr, both[1].strength) == (0.5, 0.5)
    with pytest.raises(InputError, match=r"write relearn\.lr=0\.5"):
        load_attacks(["relearn", "quantise"], ["lr=0.5"])


def test_with_one_it_may():
    assert load_attacks(["relearn"], ["lr=0.5"]) == load_attacks(["relearn"], ["relearn.lr=0.5"])


def test_one_named_twice():
    with pytest.raises(InputError, match="got the attack 'noise-inversion' twice"):
        load_attacks(["noise-inversion", "noise_inversion"])
