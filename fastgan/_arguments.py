"""Command-line parsers whose errors are one line and suggest what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose errors begin with the mistake and mention help only as a hint."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        self.exit(2, error_text(self.prog, message, known))


def at_least_one(text: str) -> int:
    """The whole number of an option that counts something, as its `type`.

    Raises:
        ArgumentTypeError: it is none, or below 1.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return number


def error_text(prog: str, message: str, options: Iterable[str]) -> str:
    """A parser's error as it is printed.

    Args:
        prog: the command's name.
        message: the parser's message.
        options: the options that exist.
    """
    message = " ".join(message.split())
    hints = []
    if message.startswith("unrecognized arguments:"):
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("-")]
        hints = [hint for word in unknown if (hint := near_name(word, options))]
    elif match := re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
        choices = [choice.strip("' ") for choice in match[2].split(",")]
        hints = [hint] if (hint := near_name(match[1], choices)) else []
    suggestion = f"; did you mean {' and '.join(hints)}?" if hints else ""
    return f"{prog}: error: {message}{suggestion} (`{prog} --help` explains all)\n"


def near_name(word: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelled word probably means, or None."""
    matches = difflib.get_close_matches(word, list(known), 1, 0.6)
    return matches[0] if matches else None
