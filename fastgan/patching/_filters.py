"""`upfirdn2d` and `filtered_lrelu` of StyleGAN's code, which others have a copy of."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan import ops
from fastgan.compat._zeros import with_zeros
from fastgan.patching._bias_act import DTYPES, SERVES, are_finite
from fastgan.patching._declare import Replacement
from fastgan.patching._probes import numbers, with_gradients


def upfirdn2d(module: str) -> Replacement:
    """Of the implementation in plain PyTorch, which runs on the CPU and where the plugin is not wanted."""
    return Replacement(
        module, "_upfirdn2d_ref", adapt=_adapted_upfirdn2d, probe=_probe_upfirdn2d, serves=SERVES
    )


def filtered_lrelu(module: str) -> Replacement:
    """Likewise."""
    return Replacement(module, "_filtered_lrelu_ref", adapt=_adapted_lrelu, probe=_probe_lrelu, serves=SERVES)


def _is_served(x: Any, *filters: Any) -> bool:
    """Whether ours takes these; the original refuses some others itself, as it did."""
    if not isinstance(x, Tensor) or x.dtype not in DTYPES or x.dim() != 4 or x.numel() == 0:
        return False
    return all(
        f is None or (isinstance(f, Tensor) and f.dtype == torch.float32 and not f.requires_grad)
        for f in filters
    )


def _adapted_upfirdn2d(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def _upfirdn2d_ref(
        x: Tensor,
        f: Tensor | None,
        up: int | Sequence[int] = 1,
        down: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        flip_filter: bool = False,
        gain: float = 1,
    ) -> Tensor:
        function = ops.upfirdn2d if _is_served(x, f) and are_finite(gain) else original
        return function(x, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=gain)

    return _upfirdn2d_ref


def _adapted_lrelu(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def _filtered_lrelu_ref(
        x: Tensor,
        fu: Tensor | None = None,
        fd: Tensor | None = None,
        b: Tensor | None = None,
        up: int = 1,
        down: int = 1,
        padding: int | Sequence[int] = 0,
        gain: float = math.sqrt(2),
        slope: float = 0.2,
        clamp: float | None = None,
        flip_filter: bool = False,
    ) -> Tensor:
        ours = _is_served(x, fu, fd) and are_finite(gain, slope, clamp)
        ours = ours and (b is None or (b.dtype == x.dtype and b.shape == x.shape[1:2]))
        function = ops.filtered_lrelu if ours else original
        y = function(
            x, fu=fu, fd=fd, b=b, up=up, down=down, padding=padding, gain=gain, slope=slope, clamp=clamp,
            flip_filter=flip_filter,
        )  # fmt: skip
        return with_zeros(y, x, b) if ours else y

    return _filtered_lrelu_ref


def _probe_upfirdn2d(function: Any) -> Iterator[Tensor]:
    x, taps = numbers(2, 3, 6, 5), numbers(6, seed=1)
    plane = taps[None, :4] * numbers(3, 1, seed=2)
    for f, options in (
        (taps, {"up": 2, "padding": [3, 2, 4, -1], "gain": 4}),
        (plane, {"down": [1, 2], "padding": 2, "flip_filter": True}),
        (None, {"up": [2, 1], "down": 3}),
    ):
        yield from with_gradients(lambda x, f=f, options=options: function(x, f, **options), x)


def _probe_lrelu(function: Any) -> Iterator[Tensor]:
    x, b, taps = numbers(2, 3, 6, 5), numbers(3, seed=1), numbers(6, seed=2) / 3
    yield from with_gradients(lambda x, b: function(x, b=b), x, b)
    options = {"fu": taps, "fd": taps[:4], "up": 2, "down": 2, "padding": [4, 3, 2, 5], "clamp": 1.5}
    yield from with_gradients(lambda x, b: function(x, b=b, slope=0.1, gain=2.0, **options), x, b)
