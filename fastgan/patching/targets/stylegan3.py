"""stylegan3"""

from fastgan.patching._declare import Kept, Target
from fastgan.patching._filters import filtered_lrelu
from fastgan.patching.targets import stylegan2_ada

TARGET = Target(
    "stylegan3",
    (*stylegan2_ada.TARGET.replacements, filtered_lrelu("torch_utils.ops.filtered_lrelu")),
    (
        *stylegan2_ada.KEPT,
        Kept("torch_utils.ops.filtered_lrelu._filtered_lrelu_cuda", "the plugin is fused already"),
    ),
)
