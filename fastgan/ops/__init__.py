"""The ops behind `fastgan.losses`: checks, choice of implementation, autograd."""

from fastgan.ops._dispatch import use
from fastgan.ops.jpeg import jpeg_round_trip
from fastgan.ops.yuv_l2 import yuv_l2

__all__ = ["jpeg_round_trip", "use", "yuv_l2"]
