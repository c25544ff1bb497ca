"""Checks of names that a user gives, and safe display of file names."""

from __future__ import annotations

import os
import unicodedata

NAME_BYTES = 255  # the limit of Linux file systems
LAYOUT = "\n\t"  # allowed in messages of several lines


def printable(text: object, keep: str = "") -> str:
    """A path or message made safe for a terminal: control and misleading characters are escaped as in Python.

    Escaped are control characters, characters that change the text direction or are invisible, and bytes of
    file names that are not text. Spaces of all kinds stay.

    Args:
        keep: such characters to keep, as newlines in a message of several lines.
    """
    return "".join(c if c in keep or _is_harmless(c) else repr(c)[1:-1] for c in str(text))


def _is_harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def check_plain_name(option: str, name: str) -> None:
    """Raises a ValueError that says why a name cannot be, or should not be, a folder's name."""
    if not name:
        problem = "it is empty"
    elif name in (".", "..") or "/" in name or "\\" in name:
        problem = "it is a path"
    elif not name.isprintable():
        odd = next(c for c in name if not c.isprintable())
        problem = f"U+{ord(odd):04X} is no character that can be seen"
    elif name[0] == " " or name[-1] in " .":
        problem = "it must neither begin with a space nor end with a space or a dot"
    elif len(os.fsencode(name)) > NAME_BYTES:
        problem = f"it takes {len(os.fsencode(name))} bytes, more than {NAME_BYTES}"
    else:
        return
    shown = name if len(name) <= 60 else f"{name[:60]}..."
    raise ValueError(f"{option} must be a plain name, got {shown!r}: {problem}")
