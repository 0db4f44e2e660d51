"""Every shipped recipe and every method without one, small enough for a test, whatever its parameters are."""

import functools
import tempfile
from pathlib import Path

from pydantic import BaseModel

from aizheimer._registry import METHODS
from aizheimer.recipes import Recipe, list_recipes, load_recipe
from tests.unit.detectors.builders import save_colour_judge

SMALL = {
    "retain_neighbours": "2",
    "retain_others": "1",
    "retain_general": "1",
    "retain_batch_size": "2",
    "monitor_examples": "4",
    "retain": "{neighbours: 2, others: 1, general: 1, batch_size: 2, monitor: 4}",
    "rollouts": "{forget: 2, retain: 3, holdout: 1, steps: 2, picture_steps: 2}",
    "training.steps": "4",
    "training.batch_size": "2",
    "training.monitor_every": "4",
    "training.lr": "0.003",
    "training.warmup": "0",
    "training.drift_limit": "null",
    "pictures": "2",
    "picture_steps": "2",
}
"""Parameters that mean the same in every method that has them, cut down to a second of work."""

OWN = {
    "aizheimer": ("enough=null", "start={average_of: 3, prior_prompts: 8, pictures: 1, picture_steps: 1}"),
    "aizheimer-robust": (
        "enough=null",
        "start={average_of: 3, prior_prompts: 8, pictures: 1, picture_steps: 1, ridge: 1}",
    ),
    "concept-ablation-memorised": ("anchor_prompts=[old man, red cat in noto style]",),
    "doco": ("warmup=1",),
    "advunlearn": ("warmup=1", "attack.steps=2", "attack.lr=0.01"),
    "hirm": ("coefficient=5", "retain_weight=1"),
    "receler": ("attack_steps=1", "attack_tokens=4", "mask_shrink=2", "training.lr=0.01"),
    "surgery": ("cut=2", "settings=[average_of=3, prior_prompts=8, pictures=1, picture_steps=1]"),
    "mace": ("lora_steps=2", "lora_pictures=1", "lora_lr=0.01"),
    "sepme": ("protect=1", "tolerance=0.01", "beta=0.1", "stop_below=-100"),
    "spm": ("anchor_weight=1", "training.lr=0.02"),
    # The tiny model draws nothing that a judge could name: a threshold of 0 blocks every picture.
    "judge-filter": ("threshold=0",),
}
"""What a method or recipe needs beside that, by its name."""

RECIPES = tuple(dict.fromkeys([*list_recipes(), *METHODS.names()]))


def quick_recipe(name: str, *overrides: str) -> Recipe:
    """Return a recipe, or a method's defaults, cut down to a second of work."""
    method = load_recipe(name).method
    small = [f"{key}={value}" for key, value in SMALL.items() if has(method, key)]
    if getattr(method, "images", None) is not None:
        small.append("images=generate:2")
    if has(method, "judge"):
        small.append(f"judge={judge_folder()}")
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


@functools.cache
def judge_folder() -> Path:
    """Return the folder of a judge that knows the battery's concept, made once and gone with the process."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="judge-"))
    return save_colour_judge(Path(_KEPT[-1].name), names=("santa claus", "cat", "dog"))


_KEPT: list[tempfile.TemporaryDirectory] = []
TRAINED = tuple(name for name in RECIPES if is_trained(name))

SELF_DRAWN = ("spm", "receler")
"""Trained on latents that the edited model draws, which change with it: no step's loss compares with another's."""
