"""pytorch_msssim"""

from fastgan.patching._declare import Kept, Target

TARGET = Target(
    "pytorch_msssim",
    (),
    (Kept("pytorch_msssim.*", "fastgan has no SSIM yet"),),
)
