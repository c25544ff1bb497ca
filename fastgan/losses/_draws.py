"""Random numbers that a user's generator may draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def draw(
    distribution: Callable[..., Tensor],
    shape: Sequence[int],
    generator: torch.Generator | None,
    **options: Any,
) -> Tensor:
    """`torch.rand` or `torch.randn`, which take no dynamic shape beside a generator, be it None."""
    if generator is not None:
        options["generator"] = generator
    return distribution(shape, **options)
