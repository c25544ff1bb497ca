"""BasicSR, which Real-ESRGAN and others train with"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastgan.compat import basicsr
from fastgan.ops import jpeg_round_trip
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import images, of_gradient, of_penalty, of_sides, with_gradients

_GAN_LOSS = "basicsr.losses.gan_loss"
_KINDS = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")
_BLOCK = 16  # of subsampled chroma; the original pads other sizes with black


def _codec_forward(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, x: Tensor, quality: float | Tensor) -> Tensor:
        plain = x.dim() == 4 and x.dtype == torch.float32 and x.shape[2] % _BLOCK == x.shape[3] % _BLOCK == 0
        rounding = self.compress.y_quantize.rounding
        wants_gradient = x.requires_grad and torch.is_grad_enabled()
        if plain and rounding is torch.round and not wants_gradient:
            return jpeg_round_trip(x, quality, check_range=False)
        if plain and rounding.__name__ == "diff_round":
            return jpeg_round_trip(x, quality, rounding="cubic", check_range=False)
        return original(self, x, quality)

    return forward


def _codec(cls: Any) -> Iterator[Tensor]:
    for differentiable in (True, False):
        codec = cls(differentiable=differentiable)
        yield from with_gradients(lambda x, codec=codec: codec(x, 60), images(2, 3, 32, 16))
        yield codec(images(2, 3, 16, 32), torch.tensor([35.0, 80.0]))


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
        Replacement(
            "basicsr.utils.diffjpeg", "DiffJPEG.forward", adapt=_codec_forward, probe=_codec,
            serves="float32 images whose sides are multiples of 16; it does not write to a tensor of qualities",
        ),
    ),
    (
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
