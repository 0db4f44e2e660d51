"""What to forget, in words: a concept, the world it lives in and its nearest neighbours."""

from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import DEFAULT_WORLD, World, WorldItem

# ``neighbours`` computes with torch and is left out, so that reading words stays fast.
__all__ = ["DEFAULT_WORLD", "Concept", "World", "WorldItem"]
