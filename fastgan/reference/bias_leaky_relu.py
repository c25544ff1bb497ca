"""Bias, leaky ReLU, gain and clamp, in plain PyTorch. See `fastgan.ops.bias_leaky_relu`."""

from __future__ import annotations

from torch import Tensor

from fastgan.reference.bias_act import bias_act


def bias_leaky_relu(x: Tensor, bias: Tensor | None, slope: float, gain: float, clamp: float | None) -> Tensor:
    """clamp(gain leaky_relu(x + bias)), N C ...; computed in float32 or better, returned in x's dtype."""
    return bias_act(x, bias, 1, "lrelu", slope, gain, clamp)
