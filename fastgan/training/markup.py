"""HTML in which all text is escaped unless it is marked as HTML."""

from __future__ import annotations

import base64
import html

from fastgan._names import LAYOUT, printable

Part = object
"""Content of an element: Html stays as it is; anything else becomes escaped text."""


class Html(str):
    """Text that is HTML already."""


def element(name: str, *parts: Part, **attributes: str) -> Html:
    """`<name attributes>parts</name>`; attribute names lose trailing underscores, as in `class_`."""
    attribute_text = "".join(f' {key.rstrip("_")}="{escaped(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{attribute_text}>{joined(*parts)}</{name}>")


def image(kind: str, content: bytes, text: str) -> Html:
    """A picture, such as of kind "png", with its alternative text."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Html(f'<img alt="{escaped(text)}" src="{source}">')


def joined(*parts: Part) -> Html:
    """The concatenated parts."""
    return Html("".join(map(escaped, parts)))


def escaped(part: Part) -> Html:
    """HTML that shows the text literally: without markup, control or misleading characters."""
    return part if isinstance(part, Html) else Html(html.escape(printable(part, keep=LAYOUT)))


def embedded_json(name: str, text: str) -> Html:
    """JSON as an element that a script reads: no text in it can end the element or begin another."""
    # Within JSON, these characters stand in strings alone, where an escape means the same.
    harmless = text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return Html(f'<script type="application/json" id="{escaped(name)}">{harmless}</script>')
