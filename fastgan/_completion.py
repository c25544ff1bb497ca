"""Completions of the `fastgan` command for shells, by shtab."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


def completion(commands: Mapping[str, Any], shell: str) -> str:
    """A script that completes commands, and what recipes can be told.

    Args:
        commands: a command's text and what is called, or the commands below it, by name.
        shell: one of SHELLS.

    Raises:
        ModuleNotFoundError: shtab is not installed.
    """
    import shtab

    parser = argparse.ArgumentParser(prog="fastgan")
    _add(parser, commands)
    return shtab.complete(parser, shell)


def _add(parser: argparse.ArgumentParser, commands: Mapping[str, Any], above: str = "") -> None:
    from fastgan.recipes import load_recipe

    choices = parser.add_subparsers()
    for name, (text, command) in commands.items():
        below = choices.add_parser(name, help=text)
        if isinstance(command, dict):
            _add(below, command, name)
        elif above == "train":
            try:
                recipe = load_recipe(name)
            except ValueError:  # of another distribution, and broken
                continue
            below.add_argument("--preset", choices=sorted(recipe.presets))
            below.add_argument("--config")
            kinds = typing.get_type_hints(recipe.config_class)
            for field in dataclasses.fields(recipe.config_class):
                kind = kinds[field.name]
                values = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else None
                below.add_argument(f"--{field.name}", choices=values)
