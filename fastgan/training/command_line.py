"""Configurations from the command line, YAML files, presets and existing runs."""

from __future__ import annotations

import dataclasses
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import docstring_parser
import jsonargparse

from fastgan._arguments import Parser, error_text, near_name
from fastgan._names import printable
from fastgan.training.config import Config, TrainingConfig, from_plain
from fastgan.training.processes.world import is_main_process, launched_world
from fastgan.training.run_options import options_of_run
from fastgan.training.yaml_files import LARGEST, parse_options

LENGTHS = ("num_steps", "num_epochs")  # num_epochs takes precedence unless it is 0
# Sphinx's markup of names, as in :mod:`fastgan.metrics`.
ROLE = re.compile(r":[a-z]+:`~?([^`]*)`")


class OptionParser(jsonargparse.ArgumentParser):
    """Parses a recipe's options, grouped in the sections of its configuration; errors take one line."""

    def __init__(self, config_class: type[TrainingConfig], prog: str) -> None:
        description = ROLE.sub(r"\1", (config_class.__doc__ or "").strip())
        super().__init__(
            prog=prog, usage=f"{prog} [--preset NAME] [--OPTION VALUE ...]", description=description,
            allow_abbrev=False,
        )  # fmt: skip
        self.names: list[str] = []
        self.kinds = typing.get_type_hints(config_class)
        docs = _field_docs(config_class)
        defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
        for title, names in config_class.in_sections().items():
            group = self.add_argument_group(title)
            for name in names:
                group.add_argument(
                    f"--{name}", type=self.kinds[name], default=defaults[name], help=docs[name]
                )
                self.names.append(f"--{name}")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = _readable_error(message, self.kinds)
        self.exit(2, error_text(self.prog, text, ["--preset", "--config", *self.names]))


def _field_docs(config_class: type[TrainingConfig]) -> dict[str, str]:
    """The docstring of each field of a configuration, and the field's bound."""
    docs: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if dataclasses.is_dataclass(base):
            for parameter in docstring_parser.parse_from_object(base).params:
                text = " ".join((parameter.description or "").split())
                docs[parameter.arg_name] = ROLE.sub(r"\1", text).replace("%", "%%")
    return {name: f"{text} {config_class.bound_of(name)}".strip() for name, text in docs.items()}


def _readable_error(message: str, kinds: Mapping[str, Any]) -> str:
    """Rewrites jsonargparse's error about a value: the option first, its type in words."""
    match = re.match(r'Parser key "(\w+)":.*?(?:Got|Given) value: (.*)', message, re.DOTALL)
    if match is None or match[1] not in kinds:
        return message
    return f"--{match[1]} must be {_describe_type(kinds[match[1]])}, got {match[2]}"


def _describe_type(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        values = [str(value) for value in arguments]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe_type, arguments))
    if origin is tuple:
        several = arguments[-1] is Ellipsis
        each = _describe_type(arguments[0])
        count = "" if several else f" of {len(arguments)}"
        return f"a list{count} such as [A,B], each {each}"
    words = {
        bool: "true or false",
        int: "an integer",
        float: "a finite number",
        str: "a text",
        type(None): "null",
    }
    return words.get(kind, str(kind))


def parse_config(
    config_class: type[Config],
    presets: Mapping[str, Config],
    arguments: list[str],
    prog: str,
    recipe: str = "",
    say: Callable[[str], object] = lambda text: None,
) -> Config:
    """Reads the configuration: defaults, then --preset, then --config FILE.yaml, then the options.

    A resumed run that has a checkpoint keeps the options that are not given; of a preset, those that differ
    from the recipe's defaults count as given. Only the main process looks for the run, whose folder other
    machines may not have, and sends the others what it has read (:func:`fastgan.training.loop.train`).
    Where num_steps is given without num_epochs, the num_epochs of earlier sources is ignored.

    Args:
        recipe: the recipe that a resumed run must be of; "": any.
        say: called with a line about the options taken from a run.

    Exits with a usage message for unknown options or wrong types.

    Raises:
        ValueError: a value that the configuration refuses.
    """
    early = Parser(prog=prog, add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    early.add_argument("--config", action="append", default=[])
    early.add_argument("--num_steps")
    early.add_argument("--num_epochs")
    early.add_argument("--batch_size")
    early.add_argument("--global_batch_size")
    early_values = early.parse_known_args(arguments)[0]
    preset = early_values.preset
    names = {field.name for field in dataclasses.fields(config_class)}
    checked = {value: _checked_text(value, names) for value in dict.fromkeys(early_values.config)}
    texts = {value: text for value, (text, _) in checked.items()}

    class ConfigFile(jsonargparse.ActionConfigFile):
        """Uses the text that was checked, because a pipe can be read only once."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            super().__call__(parser, cfg, texts.get(values, values), option_string)

    parser = OptionParser(config_class, prog)
    parser.add_argument("--preset", choices=sorted(presets), help="named settings to start from")
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of the options")
    if preset in presets:
        parser.set_defaults(dataclasses.asdict(presets[preset]))
    values = parser.parse_args(arguments).as_dict()
    folder = Path(values["runs_path"]) / values["exp_name"]
    run_options = None
    if values["resume"] and is_main_process():
        run_options = options_of_run(folder, config_class, recipe)
    if run_options:
        options = _options(config_class, *run_options)
        if preset:
            options |= _differences(config_class(), presets[preset])
        parser.set_defaults(options)
        resumed_values = parser.parse_args(arguments).as_dict()
        # A global batch size decides; the run's batch size is what followed from it for its processes then.
        decided = {"batch_size"} if resumed_values["global_batch_size"] is not None else set()
        run_values = [
            f"{n} {_short(value)}"
            for n, value in resumed_values.items()
            if values.get(n) != value and n not in decided
        ]
        if run_values:
            say(f"taken from {printable(run_options[0])}: {', '.join(run_values)}")
        values = resumed_values
    given_lengths = {name for name in LENGTHS if getattr(early_values, name) is not None}
    if given_lengths == {*LENGTHS} and values["num_epochs"]:
        raise ValueError(
            f"--num_steps {printable(early_values.num_steps)} and "
            f"--num_epochs {printable(early_values.num_epochs)} both say how long to train: give one of them"
        )
    for name in given_lengths:  # also against a later --config
        values[name] = int(getattr(early_values, name))
    if early_values.batch_size is not None and values["global_batch_size"] is not None:
        if early_values.global_batch_size is not None:
            raise ValueError(
                f"--batch_size {printable(early_values.batch_size)} and --global_batch_size "
                f"{printable(early_values.global_batch_size)} both say how large a batch is: give one of them"
            )
        values["global_batch_size"] = None
    lengths_by_priority = [given_lengths, *(checked[value][1] for value in reversed(early_values.config))]
    if next((lengths for lengths in lengths_by_priority if lengths), None) == {"num_steps"}:
        values["num_epochs"] = 0
    try:
        return config_class(**{name: value for name, value in values.items() if name in names})
    except TypeError as error:  # such as null for a string
        raise ValueError(str(error)) from error


def _options(config_class: type[TrainingConfig], path: Path, plain: dict[str, Any]) -> dict[str, Any]:
    """A run's options as a configuration has them. Raises a ValueError that names the file."""
    try:
        config = from_plain(config_class, plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{printable(path)}: {printable(error)}") from error
    # Under torchrun, the number of processes is that of the current launch.
    return {n: getattr(config, n) for n in plain if n != "devices" or launched_world() is None}


def _differences(before: TrainingConfig, now: TrainingConfig) -> dict[str, Any]:
    """The options of the second that differ from the first."""
    return {n: value for n, value in dataclasses.asdict(now).items() if value != getattr(before, n)}


def _short(value: object) -> str:
    text = str(value) if isinstance(value, (str, float, int)) else reprlib.repr(value)
    return printable(text if len(text) <= 80 else f"{text[:77]}...")


def _checked_text(value: str, names: Collection[str]) -> tuple[str, set[str]]:
    """What jsonargparse may read for --config VALUE (a regular file's name, or options as text), and which of
    LENGTHS it sets.

    The check is needed because jsonargparse would follow aliases, print values of any size, and read further
    files that a file names.

    Args:
        names: of all options.

    Raises:
        OSError: the file does not exist or cannot be read; the message names option and file.
        ValueError: not plain options, see `read_options`, or an unknown one; the message names the file.
    """
    text, origin = value, "--config"
    if os.path.exists(value) or not any(mark in value for mark in ":{\n"):
        try:
            with open(value, "rb") as file:
                content = file.read(LARGEST + 1)
        except OSError as error:
            raise type(error)(
                f"--config must name a YAML file, got {printable(value) or repr(value)}: {error.strerror}"
            ) from error
        text, origin = content.decode("utf-8", errors="replace"), value
    else:
        content = value.encode("utf-8", errors="replace")
    options = parse_options(content, origin)
    for name in ("config", "preset"):
        if name in options:
            raise ValueError(
                f"{printable(origin)} must not have the option {name!r}: give --{name} on the command line"
            )
    if unknown := [name for name in options if name not in names]:
        near = near_name(unknown[0], names)
        raise ValueError(
            f"{printable(origin)} has an option that is not known here: {printable(unknown[0])}"
            + (f"; did you mean {near}?" if near else "")
        )
    return value if os.path.isfile(value) else text, options.keys() & {*LENGTHS}
