"""Layers: which package may import which.

reference -> ops -> losses, optim, augment, monitor -> training -> recipes -> benchmarks and the command line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Source folders of the packages; `fastgan/kernels` and `fastgan/bench` may be links.
FOLDERS = {"fastgan": "fastgan", "fastgan.kernels": "kernels", "fastgan.bench": "benchmarks"}
# Packages may import those in their own line or above. A name stands for all modules of the package.
LAYERS = (
    ("_arguments", "_extras", "_files", "_folder_lock", "_names", "_tables", "_torch_internals", "_warnings"),
    ("reference", "kernels"),
    ("ops",),
    ("_sets_of_images", "losses", "optim", "augment", "compat", "metrics", "monitor"),
    ("patching",),
    ("training",),
    ("recipes",),
    ("bench", "cli", "info", "_completion", "__main__"),
)
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names}
# Strings such as "fastgan.recipes.dcgan.recipe:DCGAN" that name a module.
NAMES_A_MODULE = re.compile(r"fastgan(\.\w+)+(:\w+)?")


def sources() -> Iterator[tuple[str, Path]]:
    """All modules, as names and files."""
    for package, folder in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            if package != "fastgan" or parts[0] not in ("kernels", "bench"):
                yield ".".join((package, *parts)).removesuffix(".__init__"), file


MODULES = dict(sources())


def used(text: str, module: str) -> set[str]:
    """Names of fastgan in a module's imports, at any place, and in its strings."""
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:  # of a package's own modules
                above = module.split(".") if MODULES[module].stem == "__init__" else module.split(".")[:-1]
                package = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            imported |= {f"{package}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and NAMES_A_MODULE.fullmatch(str(node.value)):
            imported.add(node.value.replace(":", "."))
    return {name for name in imported if name.split(".")[0] == "fastgan"}


def part_of(name: str) -> str | None:
    """The part of fastgan that a name belongs to; None for fastgan itself and its own names."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYER else None


def test_every_part_has_its_layer():
    assert {name.split(".")[1] for name in MODULES if "." in name} == LAYER.keys()


@pytest.mark.parametrize("module", MODULES)
def test_nothing_names_what_stands_above_it(module):
    if module == "fastgan":
        return
    layer = LAYER[module.split(".")[1]]
    parts = {name: part_of(name) for name in used(MODULES[module].read_text(), module)}
    assert not [name for name, part in parts.items() if part is not None and LAYER[part] > layer]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("fastgan.recipes.")])
def test_recipes_do_not_name_each_other(module):
    recipe = module.split(".")[2]
    names = {
        name for name in used(MODULES[module].read_text(), module) if name.startswith("fastgan.recipes.")
    }
    assert {name.split(".")[2] for name in names} <= {recipe}


def test_lazy_imports_and_strings_count():
    text = """
def late():
    from fastgan import recipes
    from .glyphs import main
    import fastgan.bench.run
    return "fastgan.training.built_in:write_digits", "`fastgan.cli` is no name", "torch.nn:Module"
"""
    assert used(text, "fastgan.recipes.zi2zi.fonts") == {
        "fastgan.recipes", "fastgan.recipes.zi2zi.glyphs.main", "fastgan.bench.run",
        "fastgan.training.built_in.write_digits",
    }  # fmt: skip
