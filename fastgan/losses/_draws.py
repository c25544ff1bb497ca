"""Random numbers, drawn by a user's generator if there is one."""

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
    """Calls the distribution, with the generator if there is one.

    `torch.rand` and `torch.randn` cannot take dynamic shapes when `generator=` is passed, even as None.
    """
    if generator is not None:
        options["generator"] = generator
    return distribution(shape, **options)
