"""`op` of rosinality's stylegan2-pytorch, which compiles its CUDA code while it is imported

Apart from the losses: those stand in the script itself, below its imports of what is replaced here. pSp and
the encoders after it have an older copy as `models.stylegan2.op`.
"""

from fastgan.patching._declare import Extension, Kept, Target
from fastgan.patching._stylegan2_ops import (
    FUSED_BIAS_ACT,
    UPFIRDN2D,
    fused_leaky_relu,
    fused_leaky_relu_of_extension,
    upfirdn2d,
)

_COPY = "models.stylegan2.op"

TARGET = Target(
    "rosinality.op",
    (
        fused_leaky_relu("op.fused_act"),
        upfirdn2d("op.upfirdn2d", "upfirdn2d_op", takes_pairs=True),
        fused_leaky_relu_of_extension(f"{_COPY}.fused_act", "fused"),
        upfirdn2d(f"{_COPY}.upfirdn2d", "upfirdn2d_op"),
    ),
    (
        Kept("op.fused_act.FusedLeakyReLU", "it calls fused_leaky_relu, which is replaced"),
        Kept("op.conv2d_gradfix", "its convolutions are torch's"),
    ),
    extensions=tuple(
        extension
        for package in ("op", _COPY)
        for extension in (
            Extension(f"{package}.fused_act", "fused", "fused", FUSED_BIAS_ACT),
            Extension(f"{package}.upfirdn2d", "upfirdn2d_op", "upfirdn2d", UPFIRDN2D),
        )
    ),
)
