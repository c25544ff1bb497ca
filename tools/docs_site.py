"""The mkdocs hook of `make docs`: adds pages that are not in docs/*.md, and rewrites links.

* README.md becomes the front page, CONTRIBUTING.md and CHANGELOG.md become pages; their links are rewritten.
* The reference has a page for each entry of REFERENCE, with every public name of its modules.
* Links to modules in the reference lead there. Links to other files outside of docs/ lead to the repository,
  or are replaced by their text while that has no address (REPOSITORY in setup.py).
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Files of the root that become pages, by their paths in the site.
ROOT_PAGES = {
    "index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md",
}  # fmt: skip
LINK_OR_CODE = re.compile(
    r"(?P<picture>!?)\[(?P<text>[^][]*)\]\((?P<target>(?!https?:|#)[^()\s]+)\)"
    r"|^ *```.*?^ *```$|^ {4}[^\n]*$|`[^`\n]+`",
    re.MULTILINE | re.DOTALL,
)
REFERENCE = {
    "fastgan": ["fastgan"],
    "losses": ["fastgan.losses"],
    "ops": ["fastgan.ops"],
    "optim": ["fastgan.optim"],
    "augment": ["fastgan.augment"],
    "metrics": ["fastgan.metrics"],
    "monitor": ["fastgan.monitor"],
    "patching": ["fastgan.patching"],
    "compat": [f"fastgan.compat.{path.stem}" for path in sorted(ROOT.glob("fastgan/compat/[a-z]*.py"))],
    "training": [
        "fastgan.training.recipe",
        "fastgan.training.model",
        "fastgan.training.balance",
        "fastgan.training.statistics",
        "fastgan.training.registration",
    ],
}


def source_of(module: str) -> Path:
    folder = ROOT.joinpath(*module.split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def public_names(module: str) -> list[str]:
    """The names in `__all__`, or without it the module's public classes and functions."""
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    defined = (node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return [node.name for node in defined if not node.name.startswith("_")]


def is_package(name: str) -> bool:
    return source_of(name).name == "__init__.py"


def path_of(module: str, name: str) -> str:
    """The path by which mkdocstrings finds a name: inside the submodule of the same name, if there is one."""
    path = f"{module}.{name}"
    return f"{path}.{name}" if source_of(path).is_file() and not is_package(path) else path


def reference_page(title: str, modules: list[str]) -> str:
    parts = [f"# {'fastgan' if title == 'fastgan' else f'fastgan.{title}'}\n"]
    for module in modules:
        options = f"{{options: {{members: [], show_root_heading: {str(len(modules) > 1).lower()}}}}}"
        parts.append(f"::: {module}\n    {options[1:-1]}\n")
        for name in public_names(module):
            if is_package(f"{module}.{name}"):
                parts.append(f"* [{module}.{name}]({name}.md)\n")
            else:
                level = 2 if len(modules) == 1 else 3
                path = path_of(module, name)
                parts.append(f"::: {path}\n    options: {{heading_level: {level}}}\n")
    return "\n".join(parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for place, name in ROOT_PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    for title, modules in REFERENCE.items():
        files.append(File.generated(config, f"api/{title}.md", content=reference_page(title, modules)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    place = page.file.src_uri
    source = ROOT_PAGES.get(place, f"docs/{place}")
    repository = _repository()
    # Files of the repository that are pages of the site.
    pages = {original: f"docs/{site}" for site, original in ROOT_PAGES.items()}
    for title, modules in REFERENCE.items():
        pages[f"fastgan/{title}/__init__.py"] = f"docs/api/{title}.md"
        pages |= {source_of(name).relative_to(ROOT).as_posix(): f"docs/api/{title}.md" for name in modules}

    def rewritten(link: re.Match[str]) -> str:
        picture, text, target = link["picture"], link["text"], link["target"]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        path = pages.get(path, path)
        if path.startswith("docs/"):
            relative = posixpath.relpath(path, posixpath.dirname(f"docs/{place}"))
            return f"{picture}[{text}]({relative}{'#' + anchor if anchor else ''})"
        if not (ROOT / path).exists():
            raise ValueError(f"{source} links to {target}, which does not exist")
        return f"[{text}]({repository}/blob/HEAD/{path})" if repository else text

    return LINK_OR_CODE.sub(lambda match: match[0] if match["target"] is None else rewritten(match), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces Sphinx roles in docstrings by the name that they refer to, as code."""
    return re.sub(
        r":(?:func|class|meth|mod|attr|data):<code>~?(?:[\w.]*\.)?(\w+)</code>", r"<code>\1</code>", html
    )


def _repository() -> str:
    (address,) = re.findall(r'^REPOSITORY = "(.*)"$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    return address
