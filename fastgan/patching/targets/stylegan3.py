"""stylegan3"""

from fastgan.patching._declare import Kept, Target
from fastgan.patching.targets import stylegan2_ada

TARGET = Target(
    "stylegan3",
    stylegan2_ada.TARGET.replacements,
    (*stylegan2_ada.KEPT, Kept("torch_utils.ops.filtered_lrelu.*", "fastgan has no equal")),
)
