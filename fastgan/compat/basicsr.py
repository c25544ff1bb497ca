"""As in BasicSR and Real-ESRGAN."""

from __future__ import annotations

from torch import Tensor, nn

from fastgan.ops.jpeg import jpeg_round_trip


class DiffJPEG(nn.Module):
    """JPEG whose quality comes with each call; `basicsr.utils.DiffJPEG`.

    Args:
        differentiable: round coefficients by the cubic surrogate of Shin and Song (2017); False is the
            codec itself, without a gradient.
    """

    def __init__(self, differentiable: bool = True) -> None:
        super().__init__()
        self.differentiable = differentiable

    def forward(self, x: Tensor, quality: float | Tensor) -> Tensor:
        """The decoded images.

        Args:
            x: B 3 H W in [0, 1].
            quality: in [1, 100]; a number, or a tensor of B. It is left as it is.
        """
        if not self.differentiable:
            return jpeg_round_trip(x.detach(), quality)
        return jpeg_round_trip(x, quality, rounding="cubic")
