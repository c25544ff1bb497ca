"""PyTorch-GAN's WGAN-GP scripts"""

from fastgan.compat import pytorch_gan
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import of_penalty

TARGET = Target(
    "pytorch_gan",
    (
        Replacement(
            "__main__", "compute_gradient_penalty", pytorch_gan.compute_gradient_penalty,
            probe=of_penalty(lambda penalty, critic, real, fake: penalty(critic, real, fake)),
        ),
    ),
    (Kept("*", "the scripts' other losses are torch's"),),
)  # fmt: skip
