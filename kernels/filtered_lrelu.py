"""GPU kernels of `fastgan.ops.filtered_lrelu`, which documents the formulas: two launches of upfirdn2d's.

The first filters, activates and stores codes, or multiplies by what they stand for; the second filters the
result, which is stored in between in the image's dtype. A program that kept it would compute the rows and
columns around its tile again, for 2 x 2 of 12 taps up to twice as many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.kernels.upfirdn2d import ACTIVATE, MULTIPLY, launch


def filtered_lrelu(
    x: Tensor,
    b: Tensor | None,
    fu: Tensor,
    fd: Tensor,
    up: int,
    down: int,
    pad_x: int,
    pad_y: int,
    mid_h: int,
    mid_w: int,
    out_h: int,
    out_w: int,
    flip: bool,
    gain: float,
    slope: float,
    clamp: float,
    with_codes: bool,
) -> tuple[Tensor, Tensor]:
    """N C out_h out_w, and uint8 codes of the upsampled image, or none of them."""
    size = x.shape[0], x.shape[1]
    activated = x.new_empty(*size, mid_h, mid_w)
    codes = x.new_empty((*size, mid_h, mid_w) if with_codes else (0,), dtype=torch.uint8)
    launch(
        x, fu, activated, (up, up), (1, 1), (pad_x, pad_y), flip, up * up, mode=ACTIVATE, b=b,
        codes=codes if with_codes else None, activation=(slope, gain, clamp),
    )  # fmt: skip
    y = x.new_empty(*size, out_h, out_w)
    launch(activated, fd, y, (1, 1), (down, down), (0, 0), flip, 1.0)
    return y, codes


def filtered_lrelu_backward(
    grad: Tensor,
    codes: Tensor,
    first: Tensor,
    second: Tensor,
    up: int,
    down: int,
    first_x: int,
    first_y: int,
    second_x: int,
    second_y: int,
    out_h: int,
    out_w: int,
    flip: bool,
    gain: float,
    slope: float,
) -> Tensor:
    """N C out_h out_w."""
    multiplied = grad.new_empty(codes.shape)
    launch(
        grad, first, multiplied, (up, up), (1, 1), (first_x, first_y), flip, 1.0, mode=MULTIPLY, codes=codes,
        activation=(slope, gain, 0.0),
    )  # fmt: skip
    result = grad.new_empty(grad.shape[0], grad.shape[1], out_h, out_w)
    launch(multiplied, second, result, (1, 1), (down, down), (second_x, second_y), flip, 1.0)
    return result
