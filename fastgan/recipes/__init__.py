"""The recipes: one package each, whose `recipe.py` reads like the paper, on top of `fastgan.training`.

A package describes itself in its `RECIPE`, a :class:`Registration`, and is listed nowhere else. Other
distributions add recipes by an entry point in pyproject.toml:

    [project.entry-points."fastgan.recipes"]
    NAME = "their_package:RECIPE"
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, NoReturn

from fastgan._names import printable
from fastgan.training.registration import SOURCES, Registration

if TYPE_CHECKING:
    from fastgan.training.recipe import Recipe

GROUP = "fastgan.recipes"
# The recipes of this package, by name. Their code is not imported yet.
RECIPES: dict[str, Registration] = {
    package.name: importlib.import_module(f"{__name__}.{package.name}").RECIPE
    for package in pkgutil.iter_modules(__path__)
    if package.ispkg
}


@dataclass(frozen=True, eq=False)
class Unusable(Registration):
    """Stands for a recipe of another distribution that cannot be loaded; `help` says why.

    `recipe` is the name by which it was to be found.
    """

    def __post_init__(self) -> None:
        pass

    def load(self) -> NoReturn:
        raise ValueError(f"the recipe {self.recipe}: {self.help}")

    load_model = load


def load_recipe(name: str) -> type[Recipe]:
    """Imports and returns the recipe class of this name.

    Raises:
        ValueError: there is no such recipe, or it is another distribution's and cannot be loaded.
    """
    if name in RECIPES:
        return RECIPES[name].load()
    others = other_recipes()
    if name not in others:
        raise ValueError(f"there is no recipe {name!r}; there are: {', '.join([*RECIPES, *others])}")
    try:
        recipe = others[name].load()
        if recipe.name != name:
            raise ValueError(f"the recipe {name!r} is named {recipe.name!r} in its class")
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"the recipe {name!r} {_cannot_be_loaded(others[name].recipe, error)}") from error
    return recipe


@functools.cache
def other_recipes() -> dict[str, Registration]:
    """Imports the recipes of other distributions. One that fails is listed as unusable."""
    recipes: dict[str, Registration] = {}
    for owner, distribution in _distributions().items():
        try:
            entry_points = distribution.entry_points.select(group=GROUP)
        except Exception as error:
            recipes[owner] = Unusable(owner, _cannot_be_loaded("its entry_points.txt", error))
            continue
        for entry_point in entry_points:
            name = entry_point.name
            if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name):  # "--help" would replace an option
                recipes[repr(name)] = Unusable(repr(name), f"left out: {owner} gives a recipe no usable name")
            elif name in RECIPES or name in recipes:
                name = f"{name} of {owner}"
                recipes[name] = Unusable(repr(name), "left out, since another recipe has its name")
            else:
                recipes[name] = _load_entry_point(entry_point, owner)
    return recipes


def _distributions() -> dict[str, metadata.Distribution]:
    """Distributions with entry points of GROUP, by name; the first of a name counts, as for imports."""
    by_name: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        # Skip damaged distributions, which may have nothing to do with fastgan.
        with contextlib.suppress(Exception):
            if GROUP in (distribution.read_text("entry_points.txt") or ""):
                by_name.setdefault(printable(distribution.metadata["Name"]), distribution)
    return by_name


def _load_entry_point(entry_point: metadata.EntryPoint, owner: str) -> Registration:
    try:
        registration = entry_point.load()
        if not isinstance(registration, Registration):
            raise TypeError(f"must be a Registration, got {type(registration).__name__}")
    except (Exception, SystemExit) as error:
        text = _cannot_be_loaded(f"{entry_point.value} of {owner}", error)
        return Unusable(repr(entry_point.name), text)
    return registration


def all_recipes() -> dict[str, Registration]:
    """The recipes of this package and of other distributions."""
    return RECIPES | other_recipes()


def _cannot_be_loaded(what: str, error: BaseException) -> str:
    text = " ".join(str(error).split())
    return printable(f"cannot be loaded from {what}: {type(error).__name__}: {text}")


def _all_registrations() -> Iterator[tuple[str, Registration]]:
    yield from RECIPES.items()
    yield from other_recipes().items()


SOURCES.append(_all_registrations)
