"""Read an attack's name and parameters, wherever they were typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aizheimer._registry import ATTACKS
from aizheimer.attacks.base import Attack
from aizheimer.errors import InputError
from aizheimer.recipes.load import validated


def load_attack(name: str, overrides: Sequence[str] = ()) -> Attack:
    """Return the attack of a name, with parameters.

    Args:
        name: As ``aizheimer ls attacks`` lists it, with dashes or underscores.
        overrides: ``"key=value"``, values in YAML, as a recipe's.

    Raises:
        RecipeError: If there is no such attack, or with every mistake in its parameters, in one line.

    Example:
        >>> load_attack("quantise", ["bits=[4]"]).bits
        (4,)
    """
    known = ATTACKS.canonical(name)
    return validated(ATTACKS.get(known), overrides, of=f"attack '{known}'")


@dataclass(frozen=True, kw_only=True)
class LoadedAttack:
    """An attack, ready to run.

    Args:
        label: What its result is called, and names the result's file: the attack's name, or one that begins with it
            (``"relearn-full"``), so that one attack can be run with several parameters.
        attack: With its parameters.

    Raises:
        InputError: For a label of another form, or one that is another attack's name.
    """

    label: str
    attack: Attack

    def __post_init__(self) -> None:
        """Refuse a label that would be taken for something else."""
        name, own = self.attack.name, self.label
        if own != name and (own in ATTACKS or attack_of(own) != name):
            raise InputError(
                f"got the label {own!r}, wanted {name}- and small letters, digits or dashes, such as "
                f"'{name}-2'; it must be no other attack's name"
            )


def attack_of(label: str) -> str:
    """Return the attack that a label is of, "" if there is none.

    Example:
        >>> attack_of("relearn-full"), attack_of("noise-inversion"), attack_of("relern-full")
        ('relearn', 'noise-inversion', '')
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", label):
        return ""
    fitting = [name for name in ATTACKS.names() if label == name or label.startswith(f"{name}-")]
    return max(fitting, key=len, default="")


def asked_as(label: str) -> str:
    """Return how the command line asks for the attack of a label.

    Example:
        >>> asked_as("relearn"), asked_as("relearn-full")
        ('relearn', 'relearn-full=relearn')
    """
    name = attack_of(label)
    return label if name in ("", label) else f"{label}={name}"


def labelled(attacks: Iterable[str | Attack | LoadedAttack]) -> list[LoadedAttack]:
    """Return attacks with their labels, their names where they have none.

    Raises:
        InputError: If an attack is unknown, or two have one label: one result would replace the other.

    Example:
        >>> [loaded.label for loaded in labelled(["quantise"])]
        ['quantise']
    """
    found = [load_attack(attack) if isinstance(attack, str) else attack for attack in attacks]
    loaded = [one if isinstance(one, LoadedAttack) else LoadedAttack(label=one.name, attack=one) for one in found]
    _refuse_twins([one.label for one in loaded])
    return loaded


def load_attacks(names: Sequence[str], overrides: Sequence[str] = ()) -> list[LoadedAttack]:
    """Return several attacks; with more than one, an override says whose it is: ``"relearn.steps=20"``.

    Args:
        names: Of attacks, each once; ``"relearn-full=relearn"`` runs one under a label of its own.
        overrides: As for `load_attack`, after the label and a dot; with a single attack the label may be left out.

    Raises:
        RecipeError: As `load_attack`.
        InputError: If a label is given twice or is none, or an override does not say whose it is.

    Example:
        >>> both = load_attacks(["relearn", "relearn-full=relearn"], ["relearn-full.weights=full"])
        >>> [(loaded.label, loaded.attack.weights) for loaded in both]
        [('relearn', 'lora'), ('relearn-full', 'full')]
    """
    split = [name.rpartition("=") for name in names]
    known = [ATTACKS.canonical(name.strip()) for _, _, name in split]
    labels = [label.strip() if equals else name for (label, equals, _), name in zip(split, known, strict=True)]
    _refuse_twins(labels)
    own: dict[str, list[str]] = {label: [] for label in labels}
    for override in overrides:
        label, dot, rest = override.partition(".")
        owner = label.strip().replace("_", "-") if dot and "=" not in label else ""
        if owner in own:
            own[owner].append(rest)
        elif len(labels) == 1:
            own[labels[0]].append(override)
        else:
            raise InputError(
                f"{override!r}: got several attacks, wanted the name of the one that it is for; write "
                f"{labels[0]}.{override}"
            )
    return [
        LoadedAttack(label=label, attack=load_attack(name, own[label]))
        for label, name in zip(labels, known, strict=True)
    ]


def _refuse_twins(labels: Sequence[str]) -> None:
    if twice := [label for label in dict.fromkeys(labels) if labels.count(label) > 1]:
        name = attack_of(twice[0]) or twice[0]
        raise InputError(f"got the attack {twice[0]!r} twice; name it once, or give one a label: {name}-2={name}")
