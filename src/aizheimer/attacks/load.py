"""Read an attack's name and parameters, wherever they were typed."""

from __future__ import annotations

from collections.abc import Sequence

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


def load_attacks(names: Sequence[str], overrides: Sequence[str] = ()) -> list[Attack]:
    """Return several attacks; with more than one, an override says whose it is: ``"relearn.steps=20"``.

    Args:
        names: Of attacks, each once.
        overrides: As for `load_attack`; with a single attack the attack's name before the key may be left out.

    Raises:
        RecipeError: As `load_attack`.
        InputError: If a name is given twice, or an override does not say whose it is.

    Example:
        >>> [attack.name for attack in load_attacks(["quantise", "img2img"], ["img2img.strength=0.5"])]
        ['quantise', 'img2img']
    """
    known = [ATTACKS.canonical(name) for name in names]
    if twice := [name for name in dict.fromkeys(known) if known.count(name) > 1]:
        raise InputError(f"got the attack {twice[0]!r} twice; name it once")
    own: dict[str, list[str]] = {name: [] for name in known}
    for override in overrides:
        name, dot, rest = override.partition(".")
        owner = name.strip().replace("_", "-") if dot and "=" not in name else ""
        if owner in own:
            own[owner].append(rest)
        elif len(known) == 1:
            own[known[0]].append(override)
        else:
            raise InputError(
                f"{override!r}: got several attacks, wanted the name of the one that it is for; write "
                f"{known[0]}.{override}"
            )
    return [load_attack(name, words) for name, words in own.items()]
