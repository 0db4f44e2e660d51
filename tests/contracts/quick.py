"""Every shipped recipe, small enough for a test; a new method adds its line here."""

from aizheimer.recipes import Recipe, list_recipes, load_recipe

QUICK = {
    "aizheimer": [
        *("retain_neighbours=2", "retain_others=1", "retain_general=1", "retain_batch_size=2", "monitor_examples=4"),
        "rollouts={forget: 2, retain: 3, holdout: 1, steps: 2}",
        *("training.steps=4", "training.batch_size=2", "training.monitor_every=4", "training.lr=0.003"),
        *("training.warmup=0", "training.drift_limit=null"),
    ],
}
RECIPES = tuple(list_recipes())


def quick_recipe(name: str, *overrides: str) -> Recipe:
    """Return a shipped recipe cut down to a second of work."""
    method = load_recipe(name).method_name
    recipe = load_recipe(name, [*QUICK[method], *overrides])
    if recipe.method.images is not None:
        recipe = load_recipe(name, [*QUICK[method], "images=generate:2", *overrides])
    return recipe
