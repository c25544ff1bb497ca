"""What a recipe says of itself before any of its code is imported."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgan.training.recipe import Recipe

GROUPS = {"sample": "pictures from a trained recipe", "data": "data for training"}
"""Commands that recipes may add a command to."""
WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Registration:
    """What a recipe has. Code is named as entry points name it, "MODULE:NAME", and imported when it is used.

    The name of the recipe is that of its package in `fastgan.recipes`, or of its entry point.

    Raises:
        TypeError: a text that is none.
        ValueError: a command that is not named by one word, or by one of GROUPS and one word.
    """

    recipe: str
    """The subclass of :class:`fastgan.training.recipe.Recipe`, whose `name` is the recipe's."""
    help: str
    """What it makes, in a line of `fastgan train --help`."""
    commands: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What a trained one is for, and its kinds of data. By the words after `fastgan`, such as "upscale" or
    "sample dcgan": a line of help, and a function that takes the other arguments and returns the exit
    status."""
    built_in_data: Mapping[str, str] = field(default_factory=dict)
    """By NAME of `builtin:NAME/PART`: a function that writes the data into an empty folder."""
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
        """The recipe's class, imported only now."""
        return pkgutil.resolve_name(self.recipe)

    def lazy_class(self, package: str) -> Callable[[str], Any]:
        """The `__getattr__` of a recipe's package, which has the class, and imports it when asked for it."""

        def get(name: str) -> Any:
            if name != self.recipe.rpartition(":")[2]:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            return self.load()

        return get


SOURCES: list[Callable[[], Iterable[Registration]]] = []
"""What finds recipes: `fastgan.recipes`, which stands above this package, adds itself when it is imported."""


def registered() -> Iterator[Registration]:
    """All recipes that there are, those of other distributions last, and imported when their turn comes."""
    for source in SOURCES:
        yield from source()
