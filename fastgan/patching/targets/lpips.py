"""lpips"""

from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._lpips import SERVES, lpips_forward

TARGET = Target(
    "lpips",
    (Replacement("lpips.lpips", "LPIPS.forward", adapt=lpips_forward, serves=SERVES),),
    (Kept("lpips.LPIPS.__init__", "the metric keeps its own networks, weights and state"),),
)
