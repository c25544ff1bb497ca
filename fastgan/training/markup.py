"""HTML in which text is escaped unless it is known to be HTML."""

from __future__ import annotations

import html

from fastgan.training.names import LAYOUT, printable

Part = object
"""What an element holds: HTML as it is; anything else becomes text."""


class Html(str):
    """Text that is HTML already."""


def element(name: str, *parts: Part, **attributes: str) -> Html:
    """`<name attributes>parts</name>`; an attribute's name loses its underscores at the end, as `class_`."""
    given = "".join(f' {key.rstrip("_")}="{escaped(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{joined(*parts)}</{name}>")


def image(source: str, text: str) -> Html:
    """A picture, and what is read out in its stead."""
    return Html(f'<img alt="{escaped(text)}" src="{escaped(source)}">')


def joined(*parts: Part) -> Html:
    """The parts one after the other."""
    return Html("".join(map(escaped, parts)))


def escaped(part: Part) -> Html:
    """HTML that shows the text as it is: no markup, no characters that act or mislead."""
    return part if isinstance(part, Html) else Html(html.escape(printable(part, keep=LAYOUT)))
