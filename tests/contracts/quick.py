"""Every shipped recipe and every method without one, small enough for a test, whatever its parameters are."""

from pydantic import BaseModel

from aizheimer._registry import METHODS
from aizheimer.recipes import Recipe, list_recipes, load_recipe

SMALL = {
    "retain_neighbours": "2",
    "retain_others": "1",
    "retain_general": "1",
    "retain_batch_size": "2",
    "monitor_examples": "4",
    "retain": "{neighbours: 2, others: 1, general: 1, batch_size: 2, monitor: 4}",
    "rollouts": "{forget: 2, retain: 3, holdout: 1, steps: 2}",
    "training.steps": "4",
    "training.batch_size": "2",
    "training.monitor_every": "4",
    "training.lr": "0.003",
    "training.warmup": "0",
    "training.drift_limit": "null",
}
"""Parameters that mean the same in every method that has them, cut down to a second of work."""

OWN = {
    "doco": ("warmup=1",),
    "receler": ("attack_steps=1", "attack_tokens=4", "mask_shrink=2", "training.lr=0.01"),
    "sepme": ("protect=1", "tolerance=0.01", "beta=0.1", "stop_below=-100"),
    "spm": ("anchor_weight=1", "training.lr=0.02"),
}
"""What a method or recipe needs beside that, by its name."""

RECIPES = tuple(dict.fromkeys([*list_recipes(), *METHODS.names()]))


def quick_recipe(name: str, *overrides: str) -> Recipe:
    """Return a recipe, or a method's defaults, cut down to a second of work."""
    method = load_recipe(name).method
    small = [f"{key}={value}" for key, value in SMALL.items() if has(method, key)]
    if getattr(method, "images", None) is not None:
        small.append("images=generate:2")
    return load_recipe(name, [*small, *OWN.get(name, ()), *overrides])


def has(method: BaseModel, key: str) -> bool:
    """Whether a method has a parameter, dotted for a nested one."""
    first, _, rest = key.partition(".")
    fields = type(method).model_fields
    return first in fields and (not rest or has(getattr(method, first), rest))


def is_trained(name: str) -> bool:
    """Whether a recipe's method trains, step by step."""
    return has(load_recipe(name).method, "training.steps")


def seed_key(name: str) -> str:
    """Return where a recipe's method keeps its seed, or nothing."""
    method = load_recipe(name).method
    return next((key for key in ("training.seed", "seed") if has(method, key)), "")


TRAINED = tuple(name for name in RECIPES if is_trained(name))

SELF_DRAWN = ("spm", "receler")
"""Trained on latents that the edited model draws, which change with it: no step's loss compares with another's."""
