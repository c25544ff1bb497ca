"""What several shims share."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolated(
    real: Tensor, fake: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Tensor:
    """Points between real (at weight 1) and fake samples; one weight each, drawn on the given device.

    Where the published code draws, so that a seed gives the same points; in `dtype` where it casts the
    weights.
    """
    part = torch.rand(real.shape[0], *(1,) * (real.dim() - 1), device=device).to(real.device, dtype)
    return (part * real + (1 - part) * fake).detach().requires_grad_()
