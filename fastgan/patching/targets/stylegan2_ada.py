"""stylegan2-ada-pytorch"""

from fastgan.patching._bias_act import bias_act
from fastgan.patching._declare import Kept, Target
from fastgan.patching._filters import upfirdn2d

# Also of stylegan3, which has the same files.
KEPT = (
    Kept("training.loss.StyleGAN2Loss", "softplus, R1 and path lengths are written inline in its phases"),
    Kept("torch_utils.ops.bias_act._bias_act_cuda", "the plugin is fused already"),
    Kept("torch_utils.ops.upfirdn2d._upfirdn2d_cuda", "the plugin is fused already"),
    Kept(
        "training.training_loop.training_loop", 'its optimizers are replaced by fastgan.patch("torch.optim")'
    ),
)
TARGET = Target(
    "stylegan2_ada", (bias_act("torch_utils.ops.bias_act"), upfirdn2d("torch_utils.ops.upfirdn2d")), KEPT
)
