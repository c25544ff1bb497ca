"""Names that other code gave: they live in `fastgan.compat`, and are importable from `fastgan.losses`.

They are looked up there when they are first asked for, since `fastgan.compat` imports `fastgan.losses`.
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
"""Where each is defined."""


def borrowed(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module that has these names beside its own."""

    def find(name: str) -> Any:
        if name not in BORROWED:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(BORROWED[name]), name)
        setattr(sys.modules[module], name, value)  # the next time it is found without this
        return value

    return find
