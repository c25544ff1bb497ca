"""All pages of docs/ are in the site, links resolve, and public names have docstrings."""

from __future__ import annotations

import importlib
import re
from itertools import chain

import pytest

from tests.processes import ROOT

yaml = pytest.importorskip("yaml")

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "csrc/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md",
]  # fmt: skip
# Pages that the hook tools/docs_site.py makes.
MADE = re.compile(r"(index|contributing|changelog|api/\w+)\.md")
NAMESPACES = (
    "fastgan",
    *(f"fastgan.{name}" for name in ("losses", "ops", "optim", "augment", "metrics", "monitor", "patching")),
)


def places(entry):
    """The files that an entry of the navigation names."""
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return list(chain.from_iterable(places(value) for value in values))


def test_every_page_is_in_the_navigation():
    named = set(places(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {place for place in named if not MADE.fullmatch(place)} == written


def test_every_public_package_is_in_the_reference():
    named = places(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    packages = (ROOT / "fastgan").glob("[a-z]*/__init__.py")
    public = [path.parent.name for path in packages if "\n__all__ = " in path.read_text(encoding="utf-8")]
    assert "losses" in public
    assert not [name for name in public if f"api/{name}.md" not in named]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`(?!\])", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|#)([^()\s]+)\)", text):
        path = page.parent / target.partition("#")[0]
        assert path.exists(), target


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_what_is_public_has_a_docstring(namespace):
    if namespace == "fastgan.metrics":
        pytest.importorskip("torchmetrics")
    module = importlib.import_module(namespace)
    documented = {name: getattr(module, name) for name in module.__all__ if callable(getattr(module, name))}
    assert not [name for name, value in documented.items() if not (value.__doc__ or "").strip()]
