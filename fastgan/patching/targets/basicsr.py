"""BasicSR, which Real-ESRGAN and others train with"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from fastgan.compat import basicsr
from fastgan.patching._declare import Extension, Kept, Replacement, Target
from fastgan.patching._probes import (
    images,
    of_gradient,
    of_path_length,
    of_penalty,
    of_sides,
    with_gradients,
)
from fastgan.patching._stylegan2_ops import (
    FUSED_BIAS_ACT,
    UPFIRDN2D,
    fused_leaky_relu_of_extension,
    upfirdn2d,
)

_GAN_LOSS = "basicsr.losses.gan_loss"
_PIXEL_LOSS = "basicsr.losses.basic_loss"
_ACTIVATION = "basicsr.ops.fused_act.fused_act"
_FILTER = "basicsr.ops.upfirdn2d.upfirdn2d"
_COMPILES = ("BASICSR_JIT", "True")
_KINDS = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")


def _of_images(cls: Any) -> Iterator[Tensor]:
    """Of a class of pixel losses, with and without weights."""
    for reduction in ("mean", "sum", "none"):
        for weights in (None, images(2, 1, 4, 5, seed=2), images(2, 3, 4, 5, seed=2)):
            yield from with_gradients(
                lambda x, y: cls(0.5, reduction)(x, y, weights),  # noqa: B023
                images(2, 3, 4, 5), images(2, 3, 4, 5, seed=1),
            )  # fmt: skip


def _of_variation(cls: Any) -> Iterator[Tensor]:
    for reduction in ("mean", "sum"):
        for weights in (None, images(2, 1, 4, 5, seed=2)):
            yield from with_gradients(
                lambda x: cls(0.5, reduction)(x, weights),  # noqa: B023
                images(2, 3, 4, 5),
            )


TARGET = Target(
    "basicsr",
    (
        Replacement(_PIXEL_LOSS, "L1Loss", basicsr.L1Loss, probe=_of_images),
        Replacement(_PIXEL_LOSS, "MSELoss", basicsr.MSELoss, probe=_of_images),
        Replacement(_PIXEL_LOSS, "CharbonnierLoss", basicsr.CharbonnierLoss, probe=_of_images),
        Replacement(_PIXEL_LOSS, "WeightedTVLoss", basicsr.WeightedTVLoss, probe=_of_variation),
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
            _GAN_LOSS, "g_path_regularize", basicsr.g_path_regularize,
            probe=of_path_length(lambda path, images, latents, mean: path(images, latents, mean)),
        ),
        Replacement(
            _GAN_LOSS, "gradient_penalty_loss", basicsr.gradient_penalty_loss,
            probe=of_penalty(lambda penalty, critic, real, fake: penalty(critic, real, fake)),
        ),
        fused_leaky_relu_of_extension(_ACTIVATION, "fused_act_ext"),
        upfirdn2d(_FILTER, "upfirdn2d_ext"),
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
        Kept("basicsr.losses.basic_loss.*_loss", "the classes that call them are replaced"),
        Kept(f"{_ACTIVATION}.FusedLeakyReLU", "it calls fused_leaky_relu, which is replaced"),
        Kept("basicsr.ops.dcn", "fastgan has no deformable convolution"),
    ),
    registries=("basicsr.utils.registry:LOSS_REGISTRY._obj_map",),
    extensions=(
        Extension(_ACTIVATION, "fused_act_ext", "fused", FUSED_BIAS_ACT, _COMPILES),
        Extension(_FILTER, "upfirdn2d_ext", "upfirdn2d", UPFIRDN2D, _COMPILES),
    ),
)  # fmt: skip
