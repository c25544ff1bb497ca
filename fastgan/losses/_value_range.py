"""Catches images in another range than a loss takes them to be in, without making anybody wait."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from fastgan.ops._autograd import inside_transform

Range = tuple[float, float]
# Images that a loss looks at before it takes the range for right.
LOOKS = 3


class RangeCheck:
    """Looks at the first few images and warns once.

    The extremes of images on a GPU are copied when the stream gets there and read at a later call. Nothing is
    looked at under torch.compile, inside transforms, on the meta device, or while a CUDA graph is captured.
    """

    def __init__(self, loss: str) -> None:
        self.loss, self.left = loss, LOOKS
        self._pending: tuple[Tensor, torch.cuda.Event, Range] | None = None

    def look(self, image: Tensor, expected: Range) -> None:
        """Takes note of an image that should lie in the range."""
        # Dynamo would guard the count that it reads, so it is to read none.
        if torch.compiler.is_compiling() or self.left <= 0 or inside_transform() or image.is_meta:
            return
        if image.device.type != "cuda":
            self.left -= 1
            self._judge(torch.stack(image.detach().aminmax()), expected)
        elif not torch.cuda.is_current_stream_capturing():
            self._look_later(image, expected)

    def _look_later(self, image: Tensor, expected: Range) -> None:
        if self._pending is None:
            self.left -= 1
            there = torch.stack(image.detach().aminmax()).float()
            here = torch.empty(2, pin_memory=True).copy_(there, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._pending = (here, event, expected)
        elif self._pending[1].query():
            self._judge(self._pending[0], self._pending[2])
            self._pending = None

    def _judge(self, extremes: Tensor, expected: Range) -> None:
        low, high = (float(value) for value in extremes)
        reason = suspicion(low, high, expected)
        if reason:
            self.left = 0
            warnings.warn(
                f"{self.loss} takes images in [{expected[0]:g}, {expected[1]:g}], but these lie in "
                f"[{low:.3g}, {high:.3g}]: {reason}",
                RuntimeWarning,
                stacklevel=5,
            )


def suspicion(low: float, high: float, expected: Range) -> str | None:
    """What is probably wrong with images of these extremes; None: nothing."""
    span = expected[1] - expected[0]
    if low < expected[0] - span / 4 or high > expected[1] + span / 4:
        if high > 2:
            return "8-bit values must be divided by 255 first"
        if expected == (0, 1):
            return "images in [-1, 1] would be normalized twice; pass normalize=False or value_range=(-1, 1)"
        return "were they normalized twice, or with ImageNet's statistics?"
    if expected == (-1, 1) and low >= 0 and high > 0.5:
        return "images in [0, 1] need normalize=True or value_range=(0, 1)"
    return None
