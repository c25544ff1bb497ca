"""Upsampling, filtering and downsampling of planes, in plain PyTorch. See `fastgan.ops.upfirdn2d`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.precision import wide, without_autocast


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip: bool,
    gain: float,
) -> Tensor:
    """Each plane of x, with zeros inserted and padded, convolved with f; every down-th row and column of it.

    A transposed convolution inserts the zeros and gives the convolution in full, also where f reaches over
    the border: padding widens that, or cuts it.

    Args:
        x: N C H W.
        f: (taps,), along both axes, or (taps along y, taps along x).
        up, down: factors along x and y.
        padding: pixels before and after along x, then along y, of the upsampled image; negative ones crop.
        flip: whether to correlate instead of convolving.

    Returns:
        N C H' W' in x's dtype, computed in float32 or better.
    """
    with without_autocast(x):
        y = wide(x)
        taps = f.to(y.dtype)
        taps = taps.flip(tuple(range(taps.dim()))) if flip else taps
        if taps.dim() == 1:
            y = _spread(y, taps[None, :], (up[0], 1))
            y = _spread(y, taps[:, None], (1, up[1]))
        else:
            y = _spread(y, taps, up)
        (left, right, top, bottom), (height, width) = padding, (f.shape[0], f.shape[-1])
        # The full convolution lacks the zeros that are inserted after the last pixel.
        margins = (
            left - (width - 1), right - (width - 1) + up[0] - 1,
            top - (height - 1), bottom - (height - 1) + up[1] - 1,
        )  # fmt: skip
        # First widened, then cut: what is cut may be more than the image.
        y = F.pad(F.pad(y, [max(margin, 0) for margin in margins]), [min(margin, 0) for margin in margins])
        y = gain * y[:, :, :: down[1], :: down[0]]
    return y.to(x.dtype)


def _spread(x: Tensor, taps: Tensor, up: tuple[int, int]) -> Tensor:
    """The sum of all pixels' products with the taps, each placed `up` (along x, along y) times as far."""
    channels = x.shape[1]
    weight = taps[None, None].expand(channels, 1, *taps.shape)
    return F.conv_transpose2d(x, weight, stride=(up[1], up[0]), groups=channels)
