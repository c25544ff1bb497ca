"""BasicSR, which Real-ESRGAN and others train with"""

from fastgan.compat import basicsr
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import of_gradient, of_penalty, of_sides

_GAN_LOSS = "basicsr.losses.gan_loss"
_KINDS = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")


TARGET = Target(
    "basicsr",
    (
        Replacement(
            _GAN_LOSS, "GANLoss", basicsr.GANLoss,
            probe=of_sides(_KINDS, lambda loss, x, real: loss(x, real) + loss(x, real, is_disc=True),
                           real_label_val=0.9, loss_weight=0.1),
        ),
        Replacement(
            _GAN_LOSS, "MultiScaleGANLoss", basicsr.MultiScaleGANLoss,
            probe=of_sides(_KINDS, lambda loss, x, real: loss([x, [x, 2 * x]], real), loss_weight=0.1),
        ),
        Replacement(
            _GAN_LOSS, "r1_penalty", basicsr.r1_penalty, probe=of_gradient(lambda r1, out, x: r1(out, x))
        ),
        Replacement(
            _GAN_LOSS, "gradient_penalty_loss", basicsr.gradient_penalty_loss,
            probe=of_penalty(lambda penalty, critic, real, fake: penalty(critic, real, fake)),
        ),
    ),
    (
        Kept(
            "basicsr.utils.DiffJPEG",
            "fastgan.compat.basicsr.DiffJPEG computes libjpeg's values, which differ; import it in its place",
        ),
        Kept(
            "basicsr.losses.basic_loss.PerceptualLoss",
            "fastgan.compat.basicsr.PerceptualLoss draws no random numbers and has other names in its state; "
            "import that in its place",
        ),
        Kept("basicsr.losses.basic_loss.*", "fastgan has no equal"),
        Kept("basicsr.losses.gan_loss.g_path_regularize", "fastgan has no equal"),
    ),
    registries=("basicsr.utils.registry:LOSS_REGISTRY._obj_map",),
)  # fmt: skip
