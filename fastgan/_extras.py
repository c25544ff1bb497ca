"""How to get the packages that only a part of fastgan needs."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """What to do for the packages of an extra of pyproject.toml; another command once PyPI has fastgan."""
    return f"pip install '.[{extra}]' in a clone of fastgan"
