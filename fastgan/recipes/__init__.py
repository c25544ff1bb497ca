"""The recipes: each is one file that reads like the paper, on the shared loop of `fastgan.training`."""

from __future__ import annotations

from fastgan.training.recipe import Recipe

RECIPES = ("stegastamp",)


def load_recipe(name: str) -> type[Recipe]:
    """The recipe class of this name; imported only now.

    Raises:
        ValueError: there is no such recipe.
    """
    if name == "stegastamp":
        from fastgan.recipes.stegastamp import StegaStamp

        return StegaStamp
    raise ValueError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
