"""The ops behind `fastgan.losses`: checks, choice of implementation, autograd."""

from fastgan.ops._dispatch import use
from fastgan.ops.blur import blur
from fastgan.ops.jpeg import jpeg_round_trip
from fastgan.ops.perspective_warp import perspective_warp
from fastgan.ops.photometric import photometric
from fastgan.ops.yuv_l2 import yuv_l2

__all__ = ["blur", "jpeg_round_trip", "perspective_warp", "photometric", "use", "yuv_l2"]
