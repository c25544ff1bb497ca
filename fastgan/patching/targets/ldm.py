"""latent-diffusion, whose losses take their functions from taming-transformers"""

from fastgan.patching._declare import Kept, Target
from fastgan.patching.targets import taming

TARGET = Target(
    "ldm",
    taming.TARGET.replacements,
    (
        Kept(
            "ldm.modules.losses.contperceptual.LPIPSWithDiscriminator",
            taming.DIFFERS.format("fastgan.compat.ldm.LPIPSWithDiscriminator"),
        ),
        Kept(
            "ldm.modules.losses.vqperceptual.*",
            "fastgan has no equal but the functions of taming-transformers",
        ),
    ),
)
