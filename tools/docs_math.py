"""The griffe extension of `make docs`: formulas in docstrings become MathML, which browsers draw."""

from __future__ import annotations

import html
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

BLOCK = re.compile(r"^(?P<indent> *)\.\. math::\n(?P<tex>(?:(?P=indent) +\S[^\n]*\n?)+)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")


class Math(griffe.Extension):
    """Replaces the directive `.. math::` and the role `:math:`, which Markdown does not know."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = with_formulas(obj.docstring.value)


def with_formulas(text: str) -> str:
    """A docstring with its formulas as MathML."""
    text = BLOCK.sub(lambda m: f"{m['indent']}{_mathml(m['tex'], 'block')}\n", text)
    return INLINE.sub(lambda m: _mathml(m[1], "inline"), text)


def _mathml(tex: str, display: str) -> str:
    formula = " ".join(textwrap.dedent(tex).split())
    # As an entity, which Markdown does not take for emphasis.
    mathml = convert(formula, display=display).replace(r"\_", "&#95;")
    if "\\" in html.unescape(mathml):
        raise ValueError(f"this formula has a command that MathML is not made of: {formula}")
    return mathml
