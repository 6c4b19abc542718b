"""The recipe: its keys, and how its file is read.

keys            every key with its type
reading         YAML, with the line of every fault
"""

from optkit.recipe.keys import Recipe
from optkit.recipe.reading import load_recipe

__all__ = ["Recipe", "load_recipe"]
