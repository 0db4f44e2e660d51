"""An attack's parameters are read in one place, and every mistake is told."""

import pytest

from aizheimer.attacks.load import LoadedAttack, asked_as, attack_of, labelled, load_attack, load_attacks
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
    assert (both[0].attack.lr, both[1].attack.strength) == (0.5, 0.5)
    with pytest.raises(InputError, match=r"write relearn\.lr=0\.5"):
        load_attacks(["relearn", "quantise"], ["lr=0.5"])


def test_with_one_it_may():
    assert load_attacks(["relearn"], ["lr=0.5"]) == load_attacks(["relearn"], ["relearn.lr=0.5"])


def test_one_named_twice():
    with pytest.raises(InputError, match="got the attack 'noise-inversion' twice"):
        load_attacks(["noise-inversion", "noise_inversion"])


def test_one_under_two_labels():
    both = load_attacks(["relearn", "relearn-full=relearn"], ["relearn.steps=3", "relearn-full.weights=full"])
    assert [(one.label, one.attack.weights, one.attack.steps) for one in both] == [
        ("relearn", "lora", 3),
        ("relearn-full", "full", 40),
    ]
    (alone,) = load_attacks(["relearn-full=relearn"], ["weights=full"])
    assert (alone.label, alone.attack.weights) == ("relearn-full", "full")
    with pytest.raises(InputError, match=r"write relearn-full\.lr=1"):
        load_attacks(["relearn-full=relearn", "quantise"], ["lr=1"])


@pytest.mark.parametrize(
    "label", ["full", "relearnfull", "relearn-", "relearn-a/b", "relearn.full", "Relearn-full", ""]
)
def test_a_label_says_which_attack_it_is_of_and_can_be_a_file(label):
    with pytest.raises(InputError, match=r"wanted relearn- and small letters, .* such as 'relearn-2'"):
        load_attacks([f"{label}=relearn"])


def test_a_label_is_no_other_attacks_name():
    with pytest.raises(InputError, match="got the label 'quantise'"):
        load_attacks(["quantise=relearn"])
    with pytest.raises(RecipeError, match=r"unknown attack 'relern'. Did you mean 'relearn'\?"):
        load_attacks(["relearn-2=relern"])


def test_labels_are_unlike():
    with pytest.raises(InputError, match=r"got the attack 'relearn' twice; .* give one a label: relearn-2=relearn"):
        labelled(["relearn", Relearn(weights="full")])
    full = LoadedAttack(label="relearn-full", attack=Relearn(weights="full"))
    assert [one.label for one in labelled(["relearn", full])] == ["relearn", "relearn-full"]


def test_the_attack_of_a_label_is_the_longest_that_fits():
    assert [attack_of(label) for label in ("relearn-full", "soft-prompt", "soft-prompt-2", "soft")] == [
        "relearn", "soft-prompt", "soft-prompt", "",
    ]  # fmt: skip
    assert [asked_as(label) for label in ("p4d", "p4d-k", "nothing")] == ["p4d", "p4d-k=p4d", "nothing"]
