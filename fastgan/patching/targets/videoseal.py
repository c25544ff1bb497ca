"""Video Seal"""

from fastgan.compat import videoseal
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import of_logits
from fastgan.patching.targets import lpips

_MODULE = "videoseal.losses.videosealloss"

TARGET = Target(
    "videoseal",
    (
        Replacement(_MODULE, "hinge_d_loss", videoseal.hinge_d_loss, probe=of_logits(2)),
        *lpips.TARGET.replacements,
    ),
    (
        Kept(
            f"{_MODULE}.VideosealLoss",
            "fastgan.compat.videoseal.VideosealLoss differs in what its documentation lists; import that",
        ),
        Kept(
            "videoseal.losses.*",
            "JND and Watson's: fastgan has no equal; its copies of DISTS and the focal distance stay, and "
            "its SSIM has other arguments",
        ),
    ),
)
