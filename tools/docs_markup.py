"""The griffe extension of `make docs`: docstrings' directives and roles as Markdown, formulas as MathML."""

from __future__ import annotations

import html
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

BLOCK = re.compile(r"^(?P<indent> *)\.\. math::\n(?P<tex>(?:(?P=indent) +\S[^\n]*\n?)+)", re.MULTILINE)
CODE = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n\n"
    r"(?P<code>(?:(?P=indent) +\S[^\n]*(?:\n|\Z)|\n(?!\Z))+)",
    re.MULTILINE,
)
INLINE = re.compile(r":math:`([^`]+)`")


class Markup(griffe.Extension):
    """Replaces the directives and the role of Sphinx that docstrings use, which Markdown does not know."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """A docstring with fenced code and formulas in MathML."""
    text = CODE.sub(_fenced, text)
    text = BLOCK.sub(lambda m: f"{m['indent']}{_mathml(m['tex'], 'block')}\n", text)
    return INLINE.sub(lambda m: _mathml(m[1], "inline"), text)


def _fenced(block: re.Match[str]) -> str:
    lines = [f"```{block['language']}", *textwrap.dedent(block["code"]).strip("\n").split("\n"), "```"]
    return "".join(f"{block['indent']}{line}".rstrip() + "\n" for line in lines) + "\n"


def _mathml(tex: str, display: str) -> str:
    formula = " ".join(textwrap.dedent(tex).split())
    # As an entity, which Markdown does not take for emphasis.
    mathml = convert(formula, display=display).replace(r"\_", "&#95;")
    if "\\" in html.unescape(mathml):
        raise ValueError(f"this formula has a command that MathML is not made of: {formula}")
    return mathml
