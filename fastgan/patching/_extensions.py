"""Imports of modules that compile CUDA code, without the compiler."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastgan.patching._declare import Extension
from fastgan.patching._rebind import rebind


@contextmanager
def without_compiling(extensions: Sequence[Extension]) -> Iterator[None]:
    """Has `torch.utils.cpp_extension.load` give ours for these; others are compiled as before.

    A module that has taken the function by `from ... import load` has torch's own again at the end.
    """
    if not extensions:
        yield
        return
    cpp_extension: Any = importlib.import_module("torch.utils.cpp_extension")
    compiled, ours = cpp_extension.load, {extension.build: extension.ours for extension in extensions}

    def load(name: str, *args: Any, **options: Any) -> Any:
        return ours[name] if name in ours else compiled(name, *args, **options)

    cpp_extension.load = load
    try:
        yield
    finally:
        rebind({id(load): compiled})
