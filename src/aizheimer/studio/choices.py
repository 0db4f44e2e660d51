"""What there is to choose from on the page, in words."""

from __future__ import annotations

from aizheimer._registry import ATTACKS, METHODS
from aizheimer.errors import AizheimerError
from aizheimer.recipes.load import list_recipes, load_recipe

FIRST = ("aizheimer", "closed-distraction", "uce", "speed", "esd", "aizheimer-paper")
"""Methods that stand first: the default, the quick ones, the best known."""


def methods() -> list[str]:
    """Return methods and recipes, those that most will want first."""
    names = [*FIRST, *METHODS.names(), *list_recipes()]
    return list(dict.fromkeys(names))


def method_note(name: str) -> str:
    """Say in a sentence or two what a method does and what it needs; nothing of one that is unknown."""
    try:
        recipe = load_recipe(name)
    except AizheimerError:
        return ""
    info = recipe.method.info
    line = recipe.description or (type(recipe.method).__doc__ or "").strip().splitlines()[0]
    needs = f" Needs {' and '.join(info.needs)}." if info.needs else ""
    return f"{line.rstrip('.')}. {info.kind_in_words.capitalize()}; edits {info.edits}.{needs}"


def attacks() -> list[str]:
    """Return the attacks."""
    return list(ATTACKS.names())
