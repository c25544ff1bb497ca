"""How to install the packages that only a part of fastgan needs."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml; to be changed once fastgan is on PyPI."""
    return f"pip install '.[{extra}]' in a clone of fastgan"
