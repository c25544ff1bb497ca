"""Names and signatures of StegaStamp's port by missuo (`stegastamp/losses.py`, `stegastamp/augment.py`)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastgan import losses
from fastgan.losses.jpeg import check_images
from fastgan.losses.labels import secret_cross_entropy
from fastgan.ops._checks import as_number
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.ops.jpeg import jpeg_round_trip


class LPIPSLoss(losses.LPIPSLoss):
    """Mean LPIPS of images in [-1, 1]; `stegastamp.losses.LPIPSLoss`.

    Args:
        net: "alex", "vgg" or "squeeze".
        options: further arguments of :class:`fastgan.losses.LPIPS`.
    """

    def __init__(self, net: Literal["alex", "vgg", "squeeze"] = "alex", **options: Any) -> None:
        super().__init__(net, value_range=(-1, 1), **options)


class RandomJPEG(nn.Module):
    """JPEG of one random quality for the batch; `stegastamp.augment.RandomJPEG`.

    Args:
        min_quality: the lowest quality at full strength, in [1, 100].

    The number is drawn on the images' device, from torch's generator, as in the original, but not read: the
    original waits for the device. Rounding is the cubic surrogate of Shin and Song (2017).
    """

    def __init__(self, min_quality: float = 25) -> None:
        super().__init__()
        self.min_quality = as_number("min_quality", min_quality)
        if not 1 <= self.min_quality <= 100:
            raise ValueError(f"min_quality must lie in [1, 100], got {min_quality}")
        self._range_check = GrossRangeCheck("RandomJPEG", ("x",))

    def forward(self, x: Tensor, scale: float) -> Tensor:
        """The decoded images.

        Args:
            x: N 3 H W or 3 H W in [0, 1].
            scale: the strength, in [0, 1]: the quality is drawn from 100 down to 100 - (100 - min_quality)
                scale.
        """
        check_images("x", x)
        scale = as_number("scale", scale)
        if not 0 <= scale <= 1:
            raise ValueError(f"scale must lie in [0, 1], got {scale}")
        self._range_check.look((0, 1), x)
        quality = 100 - torch.rand(1, device=x.device) * (100 - self.min_quality) * scale
        quality = quality.clamp(self.min_quality, 100).expand(len(x) if x.dim() == 4 else 1)
        return jpeg_round_trip(x, quality, rounding="cubic", check_range=False)


def bce_secret_loss(logits: Tensor, target_bits: Tensor, *, from_probabilities: bool = False) -> Tensor:
    """:func:`fastgan.losses.bce_secret_loss` with the port's name of the bits.

    Args:
        logits: (N, bits).
        target_bits: 0 and 1, in the logits' shape.
        from_probabilities: the decoder ends in a sigmoid.

    Raises:
        TypeError, ValueError: logits that are not a floating-point tensor, bits that are not a tensor, or
            different shapes.
    """
    return secret_cross_entropy(logits, target_bits, from_probabilities, "target_bits")
