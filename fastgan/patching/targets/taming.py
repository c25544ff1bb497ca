"""taming-transformers"""

from fastgan.compat import taming
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._lpips import SERVES, taming_forward
from fastgan.patching._probes import of_logits

_MODULE = "taming.modules.losses.vqperceptual"
DIFFERS = "{} differs in what its documentation lists, such as LPIPS's dropout; import that in its place"

TARGET = Target(
    "taming",
    (
        Replacement(_MODULE, "hinge_d_loss", taming.hinge_d_loss, probe=of_logits(2)),
        Replacement(_MODULE, "vanilla_d_loss", taming.vanilla_d_loss, probe=of_logits(2)),
        Replacement("taming.modules.losses.lpips", "LPIPS.forward", adapt=taming_forward, serves=SERVES),
    ),
    (
        Kept(
            f"{_MODULE}.VQLPIPSWithDiscriminator",
            DIFFERS.format("fastgan.compat.taming.VQLPIPSWithDiscriminator"),
        ),
        Kept(f"{_MODULE}.adopt_weight", "it computes nothing"),
        Kept("taming.modules.discriminator.model.NLayerDiscriminator", "its layers are torch's"),
    ),
)
