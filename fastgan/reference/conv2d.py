"""A convolution, in plain PyTorch. See `fastgan.ops.conv2d`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> Tensor:
    """N C H W to N K H' W', with the gradients of every order that PyTorch gives it."""
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
