"""The ops behind `fastgan.losses`: argument checks, choice of the implementation, gradients.

Exported here are the ops that people call themselves. An op that serves a single loss or optimizer, such as
`fastgan.ops.frequency_distance`, is reached through that, here `focal_frequency_loss`.
"""

from fastgan.ops._dispatch import use
from fastgan.ops._resampling import downsample2d, filter2d, setup_filter, upsample2d
from fastgan.ops.bias_act import bias_act
from fastgan.ops.bias_leaky_relu import bias_leaky_relu
from fastgan.ops.blur import blur
from fastgan.ops.conv2d import Conv2d, conv2d, convert_convolutions
from fastgan.ops.feature_distance import feature_distance, lpips_head
from fastgan.ops.feature_moments import feature_moments
from fastgan.ops.filtered_lrelu import filtered_lrelu
from fastgan.ops.gradient_budget import gradient_budget
from fastgan.ops.jpeg import jpeg_round_trip
from fastgan.ops.perspective_warp import perspective_warp
from fastgan.ops.photometric import photometric
from fastgan.ops.pixel_loss import pixel_loss
from fastgan.ops.squared_norm import squared_norm
from fastgan.ops.ssim import ssim_distance
from fastgan.ops.upfirdn2d import upfirdn2d
from fastgan.ops.yuv_l2 import yuv_l2

__all__ = [
    "Conv2d",
    "bias_act",
    "bias_leaky_relu",
    "blur",
    "conv2d",
    "convert_convolutions",
    "downsample2d",
    "feature_distance",
    "feature_moments",
    "filter2d",
    "filtered_lrelu",
    "gradient_budget",
    "jpeg_round_trip",
    "lpips_head",
    "perspective_warp",
    "photometric",
    "pixel_loss",
    "setup_filter",
    "squared_norm",
    "ssim_distance",
    "upfirdn2d",
    "upsample2d",
    "use",
    "yuv_l2",
]
