"""Names of other libraries, defined in `fastgan.compat` and importable from `fastgan.losses`.

They are looked up lazily, since `fastgan.compat` imports `fastgan.losses`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

BORROWED = {
    "BinaryLoss": "fastgan.compat._labels",  # zi2zi's
    "CategoryLoss": "fastgan.compat._labels",  # zi2zi's
    "adv_loss": "fastgan.compat.starganv2",
    "diff_jpeg_coding": "fastgan.compat.diff_jpeg",
    "jpeg_codec_differentiable": "fastgan.compat.kornia",
}
"""The module that defines each name."""


def borrowed(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module that exports these names in addition to its own."""

    def look_up(name: str) -> Any:
        if name not in BORROWED:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(BORROWED[name]), name)
        setattr(sys.modules[module], name, value)  # so that later accesses bypass this function
        return value

    return look_up
