"""How a run is written down: shipped recipes, and recipes of the user's own."""

from aizheimer.recipes.load import Recipe, list_recipes, load_recipe

__all__ = ["Recipe", "list_recipes", "load_recipe"]
