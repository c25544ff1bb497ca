"""How a recipe describes itself before any of its code is imported."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgan.training.recipe import Recipe

GROUPS = {"sample": "pictures from a trained recipe", "data": "data for training"}
"""Command groups to which recipes may add a command."""
WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Registration:
    """Describes a recipe. Code is named as in entry points, "MODULE:NAME", and imported when it is used.

    The recipe's name is that of its package in `fastgan.recipes`, or of its entry point.

    Raises:
        TypeError: a field is not a str.
        ValueError: a command's name is not one word, or one of GROUPS and one word.
    """

    recipe: str
    """The subclass of :class:`fastgan.training.recipe.Recipe`, whose `name` is the recipe's."""
    help: str
    """What it makes: a line of `fastgan train --help`."""
    commands: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Its commands, for trained networks and data, by the words after `fastgan`, such as "upscale" or "sample
    dcgan": a line of help, and a function that takes the remaining arguments and returns the exit status."""
    built_in_data: Mapping[str, str] = field(default_factory=dict)
    """Functions that write data into an empty folder, by the NAME in `builtin:NAME/PART`."""
    demos: tuple[str, ...] = ()
    """Presets that `fastgan bench demos` trains."""

    def __post_init__(self) -> None:
        texts = {"recipe": self.recipe, "help": self.help, **self.built_in_data}
        for words, (line, function) in self.commands.items():
            *group, name = words.split(" ")
            if group not in ([], *([each] for each in GROUPS)) or not WORD.fullmatch(name):
                raise ValueError(
                    f"a command must be one word, or one after {' or '.join(GROUPS)}, got {words!r}"
                )
            texts |= {f"the help of {words!r}": line, f"the function of {words!r}": function}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a str, got {text!r}")

    def load(self) -> type[Recipe]:
        """Imports and returns the recipe's class."""
        return pkgutil.resolve_name(self.recipe)

    def lazy_class(self, package: str) -> Callable[[str], Any]:
        """A `__getattr__` for the recipe's package, which imports the class at first use."""

        def get(name: str) -> Any:
            if name != self.recipe.rpartition(":")[2]:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            return self.load()

        return get


SOURCES: list[Callable[[], Iterable[Registration]]] = []
"""Functions that list recipes. `fastgan.recipes`, which this package must not import, adds its own."""


def registered() -> Iterator[Registration]:
    """All recipes; those of other distributions come last, and are imported only when reached."""
    for source in SOURCES:
        yield from source()
