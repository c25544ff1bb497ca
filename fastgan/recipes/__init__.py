"""The recipes: each is one file that reads like the paper, on the shared loop of `fastgan.training`."""

from __future__ import annotations

import importlib

from fastgan.training.recipe import Recipe

# The class of each, which is imported only when it is asked for.
RECIPES = {
    "stegastamp": "fastgan.recipes.stegastamp.recipe:StegaStamp",
    "dcgan": "fastgan.recipes.dcgan.recipe:DCGAN",
    "starganv2": "fastgan.recipes.starganv2.recipe:StarGANv2",
    "enhancenet": "fastgan.recipes.enhancenet.recipe:EnhanceNet",
    "zi2zi": "fastgan.recipes.zi2zi.recipe:Zi2Zi",
}


def load_recipe(name: str) -> type[Recipe]:
    """The recipe class of this name; imported only now.

    Raises:
        ValueError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
    module, class_name = RECIPES[name].split(":")
    return getattr(importlib.import_module(module), class_name)
