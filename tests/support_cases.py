"""The public ops and losses, each with tensors to call it with: what `tests/support_table.py` checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import losses, ops
from fastgan.augment import DiffAugment
from fastgan.losses._frozen import L2Pooling
from fastgan.losses.dists import CHANNELS

Size = tuple[int, int, int]
"""Samples, height and width."""


@dataclass(frozen=True)
class Case:
    """A public op or loss, and tensors to call it with."""

    name: str
    inputs: Callable[[Size], tuple[Tensor, ...]]
    make: Callable[[], Any]
    """The function, or the object that has the public name."""
    differentiated: tuple[int, ...] = (0,)
    """Indices of the tensors that are differentiated."""
    call: Callable[..., Tensor] = lambda made, *tensors: made(*tensors)
    leaves_out: frozenset[str] = frozenset()
    """Checks that do not apply to it."""
    second_order_error: float = 1e-4
    """What float32 may cost a second derivative, relative to the largest."""

    def __str__(self) -> str:
        return self.name

    def function(self, dtype: torch.dtype = torch.float32) -> Callable[..., Tensor]:
        """A function of the tensors alone, with a module's weights in the given dtype."""
        instance = self.make()
        if isinstance(instance, nn.Module):
            instance = instance.to(dtype)
        return lambda *tensors: self.call(instance, *tensors)

    def tensors(self, size: Size, dtype: torch.dtype = torch.float32, grad: bool = False) -> list[Tensor]:
        """The inputs, of which those that are differentiated require grad if `grad`."""
        tensors = [t.to(dtype) if t.dtype == torch.float32 else t for t in self.inputs(size)]
        return [t.requires_grad_(grad and i in self.differentiated) for i, t in enumerate(tensors)]


def thin(loss: nn.Module) -> nn.Module:
    """The loss with every fourth channel of its backbone: the same operations in a fraction of the time."""

    def kept(channels: int) -> slice:
        return slice(None, None, 1 if channels <= 3 else 4)

    for layer in loss.modules():
        if isinstance(layer, nn.Conv2d):
            weight, bias = layer.weight, layer.bias
            layer.weight = nn.Parameter(weight[kept(weight.shape[0]), kept(weight.shape[1])].clone(), False)
            if bias is not None:
                layer.bias = nn.Parameter(bias[kept(len(bias))].clone(), False)
        elif isinstance(layer, L2Pooling):
            layer.filter = layer.filter[kept(len(layer.filter))]
    if isinstance(loss, losses.DISTS):
        for name in ("alpha", "beta"):
            maps = getattr(loss, name).split(CHANNELS, 1)
            setattr(
                loss, name, nn.Parameter(torch.cat([each[:, kept(each.shape[1])] for each in maps], 1), False)
            )
    return loss


# --- the cases ------------------------------------------------------------------------------------------


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(size: Size, seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(size[0], channels, *size[1:], generator=seeded(seed))


def two_images(size: Size) -> tuple[Tensor, ...]:
    return image(size), image(size, 1)


def gradients_and_weights(size: Size) -> tuple[Tensor, ...]:
    """Three gradients: the first graph would take a number equal to the batch size for the same."""
    return *(image(size, seed) - 0.5 for seed in range(3)), column(3, 0.5, 2)


def two_larger_images(size: Size) -> tuple[Tensor, ...]:
    """Image sizes with features larger than one pixel in all layers: shapes of 1 are compiled separately."""
    return two_images((size[0], 2 * size[1], 2 * size[2]))


def two_logits(size: Size) -> tuple[Tensor, ...]:
    return 4 * image(size, 0, 1) - 2, 4 * image(size, 1, 1) - 2


def two_features(size: Size) -> tuple[Tensor, ...]:
    return image(size, 0, 5) - 0.4, image(size, 1, 5) - 0.4


def column(count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=seeded(2))


def matrices(count: int) -> Tensor:
    moved = torch.rand(count, 3, 3, generator=seeded(3)) - 0.5
    moved = moved * torch.tensor([[0.1, 0.1, 2.0], [0.1, 0.1, 2.0], [1e-3, 1e-3, 1e-2]])
    return (torch.eye(3) + moved).double()


class Critic(nn.Module):
    """A small discriminator whose second derivatives are not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 1)
        for seed, parameter in enumerate(self.parameters()):
            parameter.data.uniform_(-0.5, 0.5, generator=seeded(seed))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.convolution(x))).mean(dim=(1, 2, 3))


def penalty_case(name: str, penalty: Callable[..., Tensor]) -> Case:
    """A penalty as a function of samples and a discriminator's parameters."""
    critic = Critic()
    names = [name for name, _ in critic.named_parameters()]

    def call(penalty: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return penalty(lambda x: torch.func.functional_call(critic, state, (x,)), x)

    parameters = tuple(parameter.detach() for parameter in critic.parameters())
    # The discriminator runs in float32, so its weights cannot have another dtype; and exporting a part of a
    # training step makes no sense (torch.export could not save its constants).
    left_out = frozenset({"half", "export"})
    return Case(name, lambda size: (image(size), *parameters), lambda: penalty, (1, 2, 3), call, left_out)


def both_losses(loss: losses.AdversarialLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Of discriminator and generator."""
    return torch.stack([loss.discriminator(real, fake), loss.generator(fake, real)])


def sides_of_scales(loss: losses.AdversarialLoss, *logits: Tensor) -> Tensor:
    """D's losses of each side and of two scales of both, with statistics from the same sweep."""
    real, _ = loss.real(logits, return_statistics=True)
    fake, _ = loss.fake(logits[0], return_statistics=True)
    both, _ = loss.discriminator(logits, logits[::-1], return_statistics=True)
    return torch.stack([real, fake, both])


def stacked(op: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> Tensor:
    """A named tuple of results in one tensor."""
    return torch.stack(op(*tensors), dim=-1)


def budget(op: Callable[..., tuple[Tensor, Tensor]], *tensors: Tensor) -> Tensor:
    """The inner products and the sum in one tensor."""
    *gradients, weights = tensors
    gram, total = op(gradients, weights.to(torch.promote_types(weights.dtype, torch.float32)))
    return torch.cat([gram.flatten(), total.flatten()])


CASES = (
    Case("squared_norm", lambda size: (image(size) - 0.5,), lambda: ops.squared_norm),
    Case("gradient_budget", gradients_and_weights, lambda: ops.gradient_budget, (0, 1, 2, 3), budget),
    Case(
        "blur", lambda size: (image(size), image((size[0], 3, 3), 4, 1)[:, 0] / 5), lambda: ops.blur, (0, 1)
    ),
    Case("perspective_warp", lambda size: (image(size), matrices(size[0])), lambda: ops.perspective_warp),
    Case(
        "photometric",
        lambda size: (image(size), column(size[0], 0, 0.1), column(size[0], 0.8, 1.2), torch.tensor(3)),
        lambda: ops.photometric,
        call=lambda op, x, noise, contrast, seed: op(x, noise=noise, contrast=contrast, seed=seed),
    ),
    Case(
        "jpeg_round_trip",
        lambda size: (image(size), column(size[0], 30, 90)),
        lambda: ops.jpeg_round_trip,
        (0, 1),
    ),
    Case(
        "bias_leaky_relu",
        lambda size: (image(size) - 0.5, column(3, -0.2, 0.2)),
        lambda: ops.bias_leaky_relu,
        (0, 1),
        lambda op, x, bias: op(x, bias, gain=2**0.5, clamp=0.6),
    ),
    Case(
        "bias_act",
        lambda size: (image(size) - 0.5, column(3, -0.2, 0.2)),
        lambda: ops.bias_act,
        (0, 1),
        lambda op, x, bias: op(x, bias, act="swish", clamp=0.3),
    ),
    Case(
        "upfirdn2d, filter2d, upsample2d, downsample2d",
        lambda size: (image(size) - 0.5, column(4, 0.1, 0.5)),
        lambda: ops.upfirdn2d,
        call=lambda op, x, f: op(x, f, up=2, padding=[2, 1]),
    ),
    Case(
        "filtered_lrelu",
        lambda size: (image(size) - 0.5, column(4, 0.1, 0.5), column(3, 0.1, 0.5), column(3, -0.2, 0.2)),
        lambda: ops.filtered_lrelu,
        (0, 3),
        lambda op, x, fu, fd, b: op(x, fu, fd, b, 2, 2, [3, 4], clamp=0.6),
    ),
    Case(
        "conv2d",
        lambda size: (image(size), image((7, 3, 3), 5) - 0.5),
        lambda: ops.conv2d,
        (0, 1),
        lambda op, x, weight: op(x, weight, stride=2, padding=1),
    ),
    Case("feature_distance", two_features, lambda: ops.feature_distance, (0, 1)),
    Case("lpips_head", lambda size: (*two_features(size), column(5, 0.1, 1)), lambda: ops.lpips_head, (0, 1)),
    Case(
        "pixel_loss, PixelLoss, total_variation_loss",
        two_images,
        lambda: losses.PixelLoss(
            "l2", color="yuv", edge_gain=3.0, sobel_weight=0.5, tv_weight=0.3, tv_kind="l2"
        ),
        (0, 1),
    ),
    Case("ssim, ssim_loss, SSIMLoss", two_images, lambda: losses.SSIMLoss(), (0, 1)),
    Case("ssim_l1_loss", two_images, lambda: losses.ssim_l1_loss, (0, 1)),
    Case(
        "ms_ssim, ms_ssim_loss, MSSSIMLoss", two_images, lambda: losses.MSSSIMLoss(weights=(0.3, 0.7)), (0, 1)
    ),
    Case("feature_moments", two_features, lambda: ops.feature_moments, (0, 1), stacked),
    Case(
        "DISTS, DISTSLoss",
        two_larger_images,
        lambda: thin(losses.DISTSLoss(load_weights=False, weights=None)),
        (0, 1),
        # That of the L2 pooling of features near zero is large, and in PyTorch's operations as inexact.
        second_order_error=0.03,
    ),
    Case(
        "feature_matching_loss",
        lambda size: (*two_features(size), *two_features((size[0], size[1], 2 * size[2]))),
        lambda: losses.feature_matching_loss,
        (0, 2),
        lambda loss, a, b, c, d: loss([a, c], [b, d], with_logits=False),
    ),
    Case(
        "focal_frequency_loss, FocalFrequencyLoss",
        two_images,
        lambda: losses.FocalFrequencyLoss(alpha=0.5, log_matrix=True),
        (0, 1),
    ),
    Case("yuv_color_l2, YUVColorL2", two_images, lambda: losses.YUVColorL2((1.0, 100.0, 50.0), 3.0), (0, 1)),
    *(
        Case(
            f"AdversarialLoss, {kind}",
            two_logits,
            lambda kind=kind: losses.AdversarialLoss(kind),  # type: ignore[misc]
            (0, 1),
            both_losses,
        )
        for kind in losses.adversarial.KINDS
        if kind not in ("nonsaturating", "wgan-gp")  # which equal other kinds here
    ),
    Case(
        "AdversarialLoss of sides and scales",
        lambda size: (*two_logits(size), *two_logits(size)[:1]),
        lambda: losses.AdversarialLoss("hinge"),
        (0, 1),
        sides_of_scales,
    ),
    penalty_case("r1_penalty_of", losses.r1_penalty_of),
    penalty_case(
        "gradient_penalty",
        lambda critic, x: losses.gradient_penalty(critic, x, None, mode="real"),
    ),
    Case(
        "R1",
        lambda size: (image(size),),
        lambda: losses.R1(Critic(), 5.0, 1),
        (),
        lambda r1, x: r1(x, 0).loss,
        frozenset({"export", "vmap"}),
    ),
    Case(
        "LPIPS, LPIPSLoss",
        two_larger_images,
        lambda: thin(losses.LPIPSLoss(net="alex", weights=None)),
        (0, 1),
    ),
    Case(
        "PerceptualLoss",
        two_images,
        lambda: thin(
            losses.PerceptualLoss(("relu1_1",), style_weights=0.5, backbone=None, value_range=(0, 1))
        ),
    ),
    Case("gram_matrix", lambda size: (image(size, 0, 5) - 0.4,), lambda: losses.gram_matrix),
    Case("RandomJPEG", lambda size: (image(size),), lambda: losses.RandomJPEG(50, 50)),
    Case(
        "jpeg_codec_differentiable, diff_jpeg_coding",
        lambda size: (image(size), column(size[0], 30, 90)),
        lambda: losses.jpeg_codec_differentiable,
        (0, 1),
    ),
    Case(
        "DiffAugment",
        lambda size: (2 * image(size) - 1, torch.rand(size[0], 7, generator=seeded(6)).double()),
        DiffAugment,
    ),
    Case(
        "CategoryLoss",
        lambda size: (image((size[0], 1, 5))[:, 0, 0] - 0.5, torch.arange(size[0]) % 5),
        lambda: losses.CategoryLoss(5),
    ),
    Case("BinaryLoss, adv_loss", lambda size: (4 * image(size, 0, 1) - 2,), lambda: losses.BinaryLoss(True)),
    Case(
        "bce_secret_loss",
        lambda size: (4 * image(size, 0, 1) - 2, (image(size, 1, 1) > 0.5).long()),
        lambda: losses.bce_secret_loss,
    ),
    Case(
        "cycle_consistency_loss, identity_loss, style_reconstruction_loss",
        two_images,
        lambda: losses.cycle_consistency_loss,
        (0, 1),
    ),
    Case("diversity_sensitive_loss", two_images, lambda: losses.diversity_sensitive_loss, (0, 1)),
)
