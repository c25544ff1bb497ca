"""R3GAN"""

from fastgan.compat import r3gan
from fastgan.patching._bias_act import bias_act
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._filters import upfirdn2d
from fastgan.patching._probes import of_gradient

_PENALTY = "AdversarialTraining.ZeroCenteredGradientPenalty"

TARGET = Target(
    "r3gan",
    (
        Replacement(
            "R3GAN.Trainer", _PENALTY, r3gan.ZeroCenteredGradientPenalty,
            probe=of_gradient(lambda cls, out, x: cls.ZeroCenteredGradientPenalty(x, out)),
        ),
        bias_act("torch_utils.ops.bias_act"),
        upfirdn2d("torch_utils.ops.upfirdn2d"),
    ),
    (
        Kept(
            "R3GAN.Trainer.AdversarialTraining.Accumulate*Gradients",
            "they call the penalty; the relativistic softplus is written inline",
        ),
    ),
)  # fmt: skip
