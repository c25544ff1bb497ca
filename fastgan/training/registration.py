"""How a recipe describes itself before any of its code is imported."""

from __future__ import annotations

import pkgutil
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgan.training.model import Model
    from fastgan.training.recipe import Recipe

GROUPS = {"sample": "pictures from a trained recipe", "data": "data for training"}
"""Command groups to which recipes may add a command."""
WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")
CODE = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, since dicts have no hash
class Registration:
    """Describes a recipe. Code is named as in entry points, "MODULE:NAME", and imported when it is used.

    The recipe's name is that of its package in `fastgan.recipes`, or of its entry point.

    Raises:
        TypeError: a field, or part of one, is of the wrong type; the message names recipe, field and value.
        ValueError: a command's name is not one word, or one of GROUPS and one word; the name of data is not
            one word; code is not named "MODULE:NAME". The message is of the same form.
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
    model: str = ""
    """The subclass of :class:`fastgan.training.model.Model` that `fastgan.load` makes; "": none."""

    def __post_init__(self) -> None:
        self._check_code("recipe", self.recipe)
        self._check_str("help", self.help)
        for field_name in ("commands", "built_in_data"):
            value = getattr(self, field_name)
            if not isinstance(value, Mapping):
                raise TypeError(self._text(f"{field_name} must be a dict", value))
        for words, command in self.commands.items():
            self._check_command(words, command)
        for name, function in self.built_in_data.items():
            if not isinstance(name, str) or not WORD.fullmatch(name):
                raise ValueError(self._text("a name in built_in_data must be one word in lower case", name))
            self._check_code(f"built_in_data[{name!r}]", function)
        if not isinstance(self.demos, tuple) or not all(isinstance(preset, str) for preset in self.demos):
            raise TypeError(self._text("demos must be a tuple of str", self.demos))
        if self.model != "":
            self._check_code("model", self.model)

    def _check_command(self, words: object, command: object) -> None:
        *group, name = words.split(" ") if isinstance(words, str) else [""]
        if group not in ([], *([each] for each in GROUPS)) or not WORD.fullmatch(name):
            form = f"one word, or one after {' or '.join(GROUPS)}"
            raise ValueError(self._text(f"a name in commands must be {form}", words))
        if not isinstance(command, tuple) or len(command) != 2:
            raise TypeError(self._text(f"commands[{words!r}] must be a tuple of help and function", command))
        self._check_str(f"the help in commands[{words!r}]", command[0])
        self._check_code(f"the function in commands[{words!r}]", command[1])

    def _check_str(self, name: str, value: object) -> None:
        if not isinstance(value, str):
            raise TypeError(self._text(f"{name} must be a str", value))

    def _check_code(self, name: str, value: object) -> None:
        self._check_str(name, value)
        if not CODE.fullmatch(str(value)):
            raise ValueError(self._text(f"{name} must be 'MODULE:NAME'", value))

    def _text(self, requirement: str, value: object) -> str:
        return f"recipe {self.recipe}: {requirement}, got {_repr.repr(value)}"

    def load(self) -> type[Recipe]:
        """Imports and returns the recipe's class."""
        return pkgutil.resolve_name(self.recipe)

    def load_model(self) -> type[Model]:
        """Imports and returns the class of trained models.

        Raises:
            ValueError: the recipe has none.
        """
        if not self.model:
            raise ValueError(f"the recipe {self.recipe} has no model: its Registration names no class for it")
        return pkgutil.resolve_name(self.model)

    def lazy_class(self, package: str) -> Callable[[str], Any]:
        """A `__getattr__` for the recipe's package, which imports the class at first use."""

        def get(name: str) -> Any:
            if name != self.recipe.rpartition(":")[2]:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            return self.load()

        return get


SOURCES: list[Callable[[], Iterable[tuple[str, Registration]]]] = []
"""Functions that list recipes by name. `fastgan.recipes`, not to be imported here, adds its own."""


def registered() -> Iterator[tuple[str, Registration]]:
    """All recipes by name; those of other distributions come last, and are imported only when reached."""
    for source in SOURCES:
        yield from source()


def model_class(name: str) -> type[Model]:
    """Imports and returns the class of a recipe's trained models.

    Raises:
        ValueError: there is no such recipe, it has no model, or it is another distribution's and its class
            cannot be loaded.
    """
    known = []
    for registered_name, registration in registered():
        known.append(registered_name)
        if registered_name != name:
            continue
        if registration.model.startswith("fastgan."):
            return registration.load_model()
        try:
            return registration.load_model()
        except ValueError:
            raise
        except (Exception, SystemExit) as error:
            place, reason = registration.model, f"{type(error).__name__}: {error}"
            raise ValueError(
                f"the model of the recipe {name!r}, {place}, cannot be loaded: {reason}"
            ) from error
    raise ValueError(f"there is no recipe {_repr.repr(name)} here; there are: {', '.join(known)}")
