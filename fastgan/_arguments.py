"""Parsers of command lines whose errors are one line, with what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse's, but for its errors: the mistake comes first, and help is a hint."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        self.exit(2, error_text(self.prog, message, known))


def error_text(prog: str, message: str, options: Iterable[str]) -> str:
    """An error of a parser as it is printed.

    Args:
        message: the parser's own.
        options: those that there are.
    """
    message = " ".join(message.split())
    hints = []
    if message.startswith("unrecognized arguments:"):
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("-")]
        hints = [hint for word in unknown if (hint := near_name(word, options))]
    elif match := re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
        choices = [choice.strip("' ") for choice in match[2].split(",")]
        hints = [hint] if (hint := near_name(match[1], choices)) else []
    meant = f"; did you mean {' and '.join(hints)}?" if hints else ""
    return f"{prog}: error: {message}{meant} (`{prog} --help` explains all)\n"


def near_name(word: str, known: Iterable[str]) -> str | None:
    """The known name that a word with a mistake probably stands for."""
    found = difflib.get_close_matches(word, list(known), 1, 0.6)
    return found[0] if found else None
