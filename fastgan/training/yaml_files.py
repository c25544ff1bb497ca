"""Options from untrusted YAML files: no objects, no aliases, at most a megabyte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fastgan._names import LAYOUT, printable

LARGEST = 2**20


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases: ten lines of them can make values that fill the memory when they are printed."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*NAME) are not supported")
        return super().compose_node(parent, index)


def read_options(path: Path) -> dict[str, Any]:
    """The options in a YAML file, by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or with aliases or tags of Python objects; not named options; too large.
    """
    with path.open("rb") as file:
        return parse_options(file.read(LARGEST + 1), str(path))


def parse_options(content: bytes, origin: str) -> dict[str, Any]:
    """The options in a text in YAML, by name.

    Args:
        content: may be cut after LARGEST + 1 bytes.
        origin: what errors call it.

    Raises:
        ValueError: as :func:`read_options`.
    """
    shown = printable(origin)
    if len(content) > LARGEST:
        raise ValueError(f"{shown} is larger than {LARGEST} bytes, too large for options")
    try:
        options = yaml.load(content, _PlainLoader)
    except RecursionError as error:
        raise ValueError(f"{shown} is nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(f"{shown} cannot be read as YAML: {printable(error, keep=LAYOUT)}") from error
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        kind = "nothing" if options is None else f"a {type(options).__name__}"
        raise ValueError(f"{shown} must hold options, one NAME: VALUE a line, got {kind}")
    return options
