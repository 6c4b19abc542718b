"""The recipe: its keys, and the reading of its file.

keys            all keys with their types
reading         reads YAML and reports every fault with its line
"""

from optkit.recipe.keys import Recipe
from optkit.recipe.reading import load_recipe

__all__ = ["Recipe", "load_recipe"]
