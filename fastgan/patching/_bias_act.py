"""`bias_act` of StyleGAN's code, which others have a copy of."""

import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastgan.compat._stylegan3_bias_act import WITH_ZEROS
from fastgan.compat._zeros import with_zeros
from fastgan.ops import bias_act as fused
from fastgan.ops.bias_act import GAINS
from fastgan.patching import _probes
from fastgan.patching._declare import Replacement

# Half types round after each of the original's steps, and once in ours.
DTYPES = (torch.float32, torch.float64)
SERVES = "in float32 and float64, where the CUDA plugin does not run"


def bias_act(module: str) -> Replacement:
    """Of the implementation in plain PyTorch, which runs on the CPU and where the plugin is not wanted."""
    return Replacement(module, "_bias_act_ref", adapt=_adapted, probe=_probe, serves=SERVES)


def are_finite(*values: object) -> bool:
    """Whether ours takes these values; the originals take tensors and infinity, too. None passes."""
    return all(v is None or (isinstance(v, numbers.Real) and math.isfinite(v)) for v in values)


def _adapted(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def _bias_act_ref(
        x: Tensor,
        b: Tensor | None = None,
        dim: int = 1,
        act: str = "linear",
        alpha: float | None = None,
        gain: float | None = None,
        clamp: float | None = None,
    ) -> Tensor:
        ours = (
            act in GAINS
            and x.dtype in DTYPES
            and x.numel() > 0
            and (b is None or (b.dtype == x.dtype and 0 <= dim < x.dim() and b.shape == (x.shape[dim],)))
            and are_finite(alpha, gain, clamp)
            and (clamp is None or clamp >= 0)
        )
        if not ours:
            return original(x=x, b=b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
        y = fused(x, b, dim, act, alpha if act == "lrelu" else None, gain, clamp)
        return with_zeros(y, x, b) if act in WITH_ZEROS else y

    return _bias_act_ref


def _probe(function: Any) -> Iterator[Tensor]:
    x, b = _probes.numbers(2, 3, 4, 4), _probes.numbers(3, seed=1)
    for act in GAINS:
        yield from _probes.with_gradients(lambda x, b, act=act: function(x=x, b=b, act=act), x, b)
    yield from _probes.with_gradients(
        lambda x, b: function(x=x, b=b, act="lrelu", alpha=0.1, gain=2.0, clamp=1.5), x, b
    )
