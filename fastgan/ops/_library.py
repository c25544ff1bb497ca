"""Loads the native libraries that belong to this installation and remembers why one is missing.

Nothing here asks for a GPU: the CUDA library is loaded where torch was built with CUDA, whether or
not a device is present.
"""

from __future__ import annotations

from pathlib import Path

import torch

_PACKAGE = Path(__file__).parent.parent

# Defines and implements operators of the `fastgan` namespace from Python for as long as we live.
LIBRARY = torch.library.Library("fastgan", "FRAGMENT")


def _load(name: str) -> str | None:
    """Loads `fastgan/<name>.abi3.so`; returns None, or why it is not available."""
    path = _PACKAGE / f"{name}.abi3.so"
    if not path.exists():
        return f"{name} was not built with this installation"
    torch.ops.load_library(str(path))
    return None


cpu_missing: str | None = _load("_C")
cuda_missing: str | None = _load("_C_cuda") if torch.version.cuda else "this torch was built without CUDA"


def define(schema: str) -> None:
    """Defines the operator `fastgan::<schema>`; native kernels attach to it by name."""
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
