"""Names and signatures of stylegan3 (`torch_utils/ops`), which stylegan2-ada-pytorch and R3GAN share."""

from __future__ import annotations

from fastgan.compat._stylegan3_bias_act import bias_act
from fastgan.compat._stylegan3_filters import (
    downsample2d,
    filter2d,
    filtered_lrelu,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

__all__ = [
    "bias_act", "downsample2d", "filter2d", "filtered_lrelu", "setup_filter", "upfirdn2d", "upsample2d"
]  # fmt: skip
