"""Checks, for `make docs`, the built site's reference: every name of every public `__all__`, no raw markup.

Usage: check_docs.py SITE
"""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path

from docs_site import REFERENCE, ROOT, path_of, public_names


def documented(site: Path) -> set[str]:
    """The names in the site's inventory, a Sphinx objects.inv of version 2."""
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", maxsplit=4)
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split(" ")[0] for line in lines if " py:" in line}


def modules_with_names() -> list[str]:
    """Public modules of fastgan with an `__all__`, and all modules of the reference."""
    modules = set()
    for path in (ROOT / "fastgan").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        private = any(part.startswith("_") for part in parts) or parts[1:2] in (("bench",), ("kernels",))
        if not private and re.search(r"^__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE):
            modules.add(".".join(parts))
    return sorted(modules.union(*REFERENCE.values()))


def missing_names(site: Path) -> list[str]:
    names = documented(site)
    wanted = (path_of(module, name) for module in modules_with_names() for name in public_names(module))
    return [name for name in wanted if name not in names]


def pages_with_raw_markup(site: Path) -> list[str]:
    """Pages of the reference that show a directive or role of Sphinx, such as `:math:`, as it is written."""
    markup = re.compile(r"(<p>|^)\.\. \w+::|:[a-z]+:<code>", re.MULTILINE)
    pages = sorted((site / "api").rglob("index.html"))
    return [str(page) for page in pages if markup.search(page.read_text(encoding="utf-8"))]


def main(arguments: list[str]) -> int:
    (site,) = arguments
    missing, raw = missing_names(Path(site)), pages_with_raw_markup(Path(site))
    if missing:
        print(f"not in the reference of {site}: {', '.join(missing)}")
    if raw:
        print(f"markup that is shown as it is written, in {', '.join(raw)}")
    return 1 if missing or raw else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
