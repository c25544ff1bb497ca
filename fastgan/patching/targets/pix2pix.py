"""pytorch-CycleGAN-and-pix2pix, and what shares its `models/networks.py`, as CUT does"""

from fastgan.compat import pix2pix
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import of_penalty, of_sides

TARGET = Target(
    "pix2pix",
    (
        Replacement(
            "models.networks", "GANLoss", pix2pix.GANLoss,
            probe=of_sides(
                ("lsgan", "vanilla", "wgangp"), lambda loss, x, real: loss(x, real), target_real_label=0.9
            ),
        ),
        Replacement(
            "models.networks", "cal_gradient_penalty", pix2pix.cal_gradient_penalty,
            probe=of_penalty(lambda penalty, critic, real, fake: penalty(critic, real, fake, "cpu")),
        ),
    ),
    (
        Kept("models.networks.loss.GANLoss", "SPADE's has other arguments"),
        Kept("models.*_model.*", "terms that are written in a model's own steps stay, such as L1"),
    ),
)  # fmt: skip
