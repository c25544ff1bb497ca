"""Names of ops as arguments of the scripts that write pages about all ops."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from fastgan._arguments import near_name


def chosen_names(page: str, known: Iterable[str], arguments: Sequence[str] | None = None) -> set[str]:
    """The names given on the command line, none for all; exits with an error if one is not known."""
    known = dict.fromkeys(known)
    parser = argparse.ArgumentParser(description=f"Writes {page}.")
    help_text = f"redo only the rows of these, and keep the page's others; of {', '.join(known)}"
    parser.add_argument("names", nargs="*", metavar="OP", help=help_text)
    names = parser.parse_args(arguments).names
    for name in names:
        if name not in known:
            near = near_name(name, known)
            parser.error(f"no rows are named {name!r}" + (f"; did you mean {near!r}?" if near else ""))
    return set(names)
