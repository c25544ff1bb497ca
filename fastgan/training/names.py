"""Names that a user gives, and how names of files are shown."""

from __future__ import annotations

import os
import unicodedata

NAME_BYTES = 255  # the longest that Linux' file systems take
LAYOUT = "\n\t"  # what messages of several lines have


def printable(text: object, keep: str = "") -> str:
    """A path or a message as a terminal may have it: what would act on it or mislead is escaped as in Python.

    That is control characters, those that turn the direction of text or cannot be seen, and bytes of a file's
    name that are no text. Spaces of all kinds stay.

    Args:
        keep: characters that stay although they are such, as newlines in a message of several lines.
    """
    return "".join(c if c in keep or _is_harmless(c) else repr(c)[1:-1] for c in str(text))


def _is_harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def check_plain_name(option: str, name: str) -> None:
    """Raises a ValueError, which says why, for a name that cannot be, or should not be, that of a folder."""
    if not name:
        wrong = "it is empty"
    elif name in (".", "..") or "/" in name or "\\" in name:
        wrong = "it is a path"
    elif not name.isprintable():
        odd = next(c for c in name if not c.isprintable())
        wrong = f"U+{ord(odd):04X} is no character that can be seen"
    elif name[0] == " " or name[-1] in " .":
        wrong = "it must neither begin with a space nor end with a space or a dot"
    elif len(os.fsencode(name)) > NAME_BYTES:
        wrong = f"it takes {len(os.fsencode(name))} bytes, more than {NAME_BYTES}"
    else:
        return
    shown = name if len(name) <= 60 else f"{name[:60]}..."
    raise ValueError(f"{option} must be a plain name, got {shown!r}: {wrong}")
