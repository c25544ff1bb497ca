"""Bias, activation, gain and clamp, in plain PyTorch. See `fastgan.ops.bias_act`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.clamp import clamp as clamped
from fastgan.reference.clamp import with_slope_of_nan

SMOOTH = ("tanh", "sigmoid", "elu", "selu", "softplus", "swish")
"""The activations that are not piecewise linear; elu and selu have a kink at 0."""
OF_OUTPUT = ("tanh of output", "sigmoid of output")
"""Activations whose derivatives are polynomials of what they return."""
# Beyond it swish is x or 0 in every dtype; its formulas would multiply 0 by infinity.
SWISH_BOUND = 1e4
# Klambauer et al. 2017: with them activations keep mean 0 and variance 1.
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def bias_act(
    x: Tensor, bias: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """clamp(gain act(x + bias)), the bias along `dim`; computed in float32 or better, returned in x's dtype.

    `alpha` is the slope of "lrelu" for negative numbers.
    """
    accumulation_dtype = torch.promote_types(x.dtype, torch.float32)
    y = x.to(accumulation_dtype)
    if bias is not None:
        y = y + bias.to(accumulation_dtype).reshape(-1, *(1,) * (x.dim() - 1 - dim))
    if act != "linear":
        y = activated(with_slope_of_nan(y), act, alpha)
    if gain != 1:
        y = gain * y
    if clamp is not None:
        y = clamped(y, -clamp, clamp)
    return y.to(x.dtype)


def activated(x: Tensor, act: str, alpha: float) -> Tensor:
    """The activation of each number."""
    if act == "relu" or (act == "lrelu" and alpha == 0):  # zero times infinity would be NaN
        return F.relu(x)
    if act == "lrelu":
        return F.leaky_relu(x, alpha)
    if act == "tanh":
        return x.tanh()
    if act == "sigmoid":
        return x.sigmoid()
    if act == "elu":
        return F.elu(x)
    if act == "selu":
        return F.selu(x)
    if act == "softplus":
        return F.softplus(x)
    bounded = x.clamp(-SWISH_BOUND, SWISH_BOUND)
    return torch.where(x >= SWISH_BOUND, x, bounded.sigmoid() * bounded)


def derivatives(x: Tensor, act: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of first, second and third order of a smooth activation at x, or at the x that gives this output.

    At 0, elu and selu have the first derivative of negative numbers and the others of positive ones, as in
    torch.
    """
    if act == "tanh of output":
        return 1 - x * x, -2 * x, torch.full_like(x, -2.0)
    if act == "sigmoid of output":
        return x * (1 - x), 1 - 2 * x, torch.full_like(x, -2.0)
    if act == "tanh":
        t = x.tanh()
        first = 1 - t * t
        return first, -2 * t * first, first * (6 * t * t - 2)
    if act in ("elu", "selu"):
        scale, factor = (1.0, 1.0) if act == "elu" else (SELU_SCALE, SELU_SCALE * SELU_ALPHA)
        power = factor * torch.where(x > 0, 0, x).exp()
        higher = torch.where(x >= 0, 0, power)
        return torch.where(x > 0, scale, power), higher, higher
    slope, complement = x.sigmoid(), (-x).sigmoid()
    product, difference = slope * complement, complement - slope
    if act == "sigmoid":
        return product, product * difference, product * (1 - 6 * product)
    if act == "softplus":
        return slope, product, product * difference
    x = x.clamp(-SWISH_BOUND, SWISH_BOUND)
    third = product * (difference * (3 + x * difference) - 2 * x * product)
    return slope * (1 + x * complement), product * (2 + x * difference), third
