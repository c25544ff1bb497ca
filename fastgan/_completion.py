"""Shell completion for the `fastgan` command, by shtab."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


def completion(commands: Mapping[str, Any], shell: str) -> str:
    """A shell script that completes commands and the options of recipes.

    Args:
        commands: by name, a command's help text and its function, or a mapping of its subcommands.
        shell: one of SHELLS.

    Raises:
        ModuleNotFoundError: shtab is not installed.
    """
    import shtab

    parser = argparse.ArgumentParser(prog="fastgan")
    _add(parser, commands)
    return shtab.complete(parser, shell)


def _add(parser: argparse.ArgumentParser, commands: Mapping[str, Any], parent: str = "") -> None:
    from fastgan.recipes import load_recipe

    subparsers = parser.add_subparsers()
    for name, (text, command) in commands.items():
        subparser = subparsers.add_parser(name, help=text)
        if isinstance(command, dict):
            _add(subparser, command, name)
        elif parent == "train":
            try:
                recipe = load_recipe(name)
            except ValueError:  # a broken recipe of another distribution
                continue
            subparser.add_argument("--preset", choices=sorted(recipe.presets))
            subparser.add_argument("--config")
            kinds = typing.get_type_hints(recipe.config_class)
            for field in dataclasses.fields(recipe.config_class):
                kind = kinds[field.name]
                values = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else None
                subparser.add_argument(f"--{field.name}", choices=values)
