"""`op` of rosinality's stylegan2-pytorch, which compiles its CUDA code while it is imported

Apart from the losses: those stand in the script itself, below its imports of what is replaced here.
"""

from fastgan.patching._declare import Extension, Kept, Target
from fastgan.patching._stylegan2_ops import FUSED_BIAS_ACT, UPFIRDN2D, fused_leaky_relu, upfirdn2d

TARGET = Target(
    "rosinality.op",
    (fused_leaky_relu("op.fused_act"), upfirdn2d("op.upfirdn2d", "upfirdn2d_op")),
    (
        Kept("op.fused_act.FusedLeakyReLU", "it calls fused_leaky_relu, which is replaced"),
        Kept("op.conv2d_gradfix", "its convolutions are torch's"),
    ),
    extensions=(
        Extension("op.fused_act", "fused", "fused", FUSED_BIAS_ACT),
        Extension("op.upfirdn2d", "upfirdn2d_op", "upfirdn2d", UPFIRDN2D),
    ),
)
