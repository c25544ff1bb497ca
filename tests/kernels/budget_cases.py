"""The calls in docs/gpu-budgets.md: each op at memory-bound and at small sizes, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan import losses, ops
from fastgan.ops.adversarial import discriminator_loss, generator_loss
from fastgan.ops.feature_matching import feature_matching
from fastgan.ops.frequency_distance import frequency_distance
from fastgan.ops.side_losses import side_losses

HALF = torch.bfloat16
LARGE = (8, 3, 1080, 1920)
ODD = (8, 3, 1079, 1919)
IMAGES, LOGITS, FEATURES = (4, 3, 64, 64), (16, 1, 30, 30), (16, 64, 32, 32)


@dataclass(frozen=True)
class Case:
    op: str
    variant: str
    shape: tuple[int, ...]
    call: Callable[[Tensor], Tensor]
    """A function of a tensor of this shape, to a differentiable tensor."""
    floor: tuple[float, float]
    """The bytes that must move, forward and backward, as multiples of the input's bytes."""
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    all_architectures: bool = False
    passes: tuple[int, ...] = ()
    """The passes of the backward kernel's loops whose bounds are computed on the device."""
    table: str = "ops"
    """The page's table in which the case's launches are listed."""

    def __str__(self) -> str:
        return f"{self.op}, {self.variant}"

    def input(self) -> Tensor:
        x = torch.empty(self.shape, device="cuda", dtype=self.dtype)
        return (x.to(memory_format=torch.channels_last) if self.channels_last else x).requires_grad_()


def like(x: Tensor) -> Tensor:
    return torch.empty_like(x, requires_grad=False)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device="cuda", dtype=dtype)


def photometric(x: Tensor) -> Tensor:
    n = x.shape[0]
    return ops.photometric(
        x, noise=drawn(n), contrast=drawn(n), offset=drawn(n, 3), desaturation=drawn(n),
        seed=drawn(dtype=torch.int64),
    )  # fmt: skip


def image_op(
    op: str,
    call: Callable[[Tensor], Tensor],
    floor: tuple[float, float],
    odd: bool,
    passes: tuple[int, ...] = (),
) -> list[Case]:
    return [
        Case(op, "float32", LARGE, call, floor, all_architectures=True, passes=passes),
        Case(op, "bfloat16", LARGE, call, floor, HALF, passes=passes),
        *([Case(op, "channels_last", LARGE, call, floor, channels_last=True)] if odd else []),
        *([Case(op, "bfloat16, channels_last", LARGE, call, floor, HALF, True)] if odd else []),
        *([Case(op, "odd sizes", ODD, call, floor)] if odd else []),
    ]


def features(weighed: bool, p: int) -> Callable[[Tensor], Tensor]:
    return lambda x: ops.feature_distance(
        x, like(x), p, normalize=weighed, weight=drawn(x.shape[1]) if weighed else None
    ).mean()


def lpips(x: Tensor) -> Tensor:
    return ops.lpips_head(x, like(x), drawn(x.shape[1]))


def moments(x: Tensor) -> Tensor:
    return torch.stack(ops.feature_moments(x, like(x)))


def matched(count: int) -> Callable[[Tensor], Tensor]:
    """The tensor and others like it with as many constants."""

    def call(x: Tensor) -> Tensor:
        fake = [x, *(like(x).requires_grad_() for _ in range(count - 1))]
        return feature_matching(fake, [like(x) for _ in fake], [1.0] * count)

    return call


def budget_of(count: int) -> Callable[[Tensor], Tensor]:
    """The inner products of the tensor and others like it."""
    return lambda x: ops.gradient_budget([x, *(like(x) for _ in range(count - 1))], drawn(count))[0]


def pixels(kind: str = "charbonnier", **options) -> Callable[[Tensor], Tensor]:
    return lambda x: ops.pixel_loss(x, like(x), kind=kind, **options)[0]


def activated(x: Tensor) -> Tensor:
    return ops.bias_leaky_relu(x, drawn(x.shape[1]).requires_grad_())


def biased_swish(x: Tensor) -> Tensor:
    return ops.bias_act(x, drawn(x.shape[1]).requires_grad_(), act="swish")


def filtered(x: Tensor, taps: tuple[int, ...], up: int = 1, down: int = 1) -> Tensor:
    return ops.upfirdn2d(x, drawn(*taps), up, down, padding=taps[0] // 2)


def alias_free(x: Tensor) -> Tensor:
    """A layer of StyleGAN3-T."""
    bias = drawn(x.shape[1]).requires_grad_()
    return ops.filtered_lrelu(x, drawn(12), drawn(12), bias, 2, 2, [11, 10], clamp=256.0)


def discriminator_call(x: Tensor, game: str = "cross_entropy") -> Tensor:
    return discriminator_loss(x, like(x).requires_grad_(), game)[0]


def sides_call(x: Tensor, scales: int = 3, with_statistics: bool = True) -> Tensor:
    """Of equal scales of the real side."""
    logits = [x, *(like(x).requires_grad_() for _ in range(scales - 1))]
    return side_losses(logits, [], "cross_entropy", with_statistics=with_statistics)[0]


def warped(x: Tensor, dtype: torch.dtype) -> Tensor:
    return ops.perspective_warp(x, drawn(x.shape[0], 3, 3, dtype=dtype))


MASKS = 1 / 12  # a byte for each pixel of three float32 channels
CODES = 1 / 4
# Passes of perspective_warp's backward loops: rows of a window, fours of columns, and none for output pixels
# outside it, as in the interpreter's tests of StegaStamp's warps.
NEAR_IDENTITY = (4, 1, 0, 0)
# Ops that launch other kernels for small tensors than for large ones.
SUM_ALONE = {
    "squared_norm",
    "bias_act",
    "bias_leaky_relu",
    "adversarial, discriminator",
    "adversarial, generator",
    "side_losses",
}


def splatted(x: Tensor) -> Tensor:
    return losses.ssim_l1_loss(x, like(x), check_range=False)


CASES = (
    *image_op("yuv_l2", lambda x: ops.yuv_l2(x, like(x), (1.0, 100.0, 50.0), 3.0)[0], (3, 0), True),
    *image_op("pixel_loss", pixels(), (3, 0), True),
    *(
        Case("pixel_loss", variant, LARGE, call, floor)
        for variant, call, floor in (
            ("YUV, L2, weights", lambda x: ops.pixel_loss(
                x, like(x), drawn(x.shape[0], 1, *x.shape[2:]), kind="l2", color="yuv", edge_gain=3.0)[0],
             (3 + 1 / 3, 0)),
            ("total variation", pixels("l1", tv_weight=0.1), (3, 0)),
            ("Sobel", pixels("l1", sobel_weight=0.1), (3, 0)),
        )
    ),
    *image_op("photometric", photometric, (2 + MASKS, 2 + MASKS), True),
    *image_op("blur", lambda x: ops.blur(x, drawn(x.shape[0], 7, 7)), (2, 2), False),
    *image_op(
        "perspective_warp",
        lambda x: warped(x, torch.float64), (2, 2), False, NEAR_IDENTITY,
    ),
    *image_op("squared_norm", ops.squared_norm, (1, 2), False),
    *image_op("gradient_budget", budget_of(4), (5, 5), False),
    Case("gradient_budget", "8 gradients, bfloat16", LARGE, budget_of(8), (9, 9), HALF),
    Case("gradient_budget", "16 gradients", LARGE, budget_of(16), (17, 17)),
    *(
        Case("bias_act", f"swish, {variant}", (8, 256, 256, 256), biased_swish, (2, 3), dtype, last,
             variant == "float32")
        for variant, dtype, last in (
            ("float32", torch.float32, False), ("bfloat16", HALF, False),
            ("channels_last", torch.float32, True),
        )
    ),
    *(
        Case("bias_leaky_relu", variant, (8, 256, 256, 256), activated, floor,
             dtype, last, variant == "float32")
        for variant, dtype, last, floor in (
            ("float32", torch.float32, False, (2 + CODES, 2 + CODES)),
            ("bfloat16", HALF, False, (2 + 2 * CODES, 2 + 2 * CODES)),
            ("channels_last", torch.float32, True, (2 + CODES, 2 + CODES)),
        )
    ),
    *(
        Case("upfirdn2d", variant, (8, 64, 256, 256), call, (floor, floor),
             HALF if "bfloat16" in variant else torch.float32, all_architectures="bfloat16" not in variant)
        for variant, call, floor in (
            ("up 2, 12 taps, float32", lambda x: filtered(x, (12,), up=2), 5),
            ("down 2, 12 taps, float32", lambda x: filtered(x, (12,), down=2), 1.25),
            ("up 2, 4 x 4, float32", lambda x: filtered(x, (4, 4), up=2), 5),
            ("up 2, 12 taps, bfloat16", lambda x: filtered(x, (12,), up=2), 5),
        )
    ),
    *(
        Case("filtered_lrelu", variant, (8, 64, 256, 256), alias_free, (2 + 4 * codes, 2 + 4 * codes), dtype,
             all_architectures=variant == "float32")
        for variant, dtype, codes in (("float32", torch.float32, CODES), ("bfloat16", HALF, 2 * CODES))
    ),
    *(
        Case("feature_distance", f"{name}, {kind}", shape, features(weighed, p), (3, 0), dtype, False,
             kind == "float32")
        for kind, dtype in (("float32", torch.float32), ("bfloat16", HALF))
        for name, weighed, p, shape in (
            ("L1", False, 1, (8, 64, 512, 512)), ("LPIPS", True, 2, (8, 256, 128, 128)),
        )
    ),
    *(
        Case("ssim", variant, (5, 5, 1080, 1920), call, (3, 0), dtype,
             all_architectures=variant == "float32")
        for variant, dtype, call in (
            ("float32", torch.float32, lambda x: losses.ssim_loss(x, like(x), check_range=False)),
            ("bfloat16", HALF, lambda x: losses.ssim_loss(x, like(x), check_range=False)),
            ("with L1, zeros beyond the border", torch.float32, splatted),
        )
    ),
    *(
        Case("feature_moments", variant, shape, moments, (2, 3), dtype, last, variant == "float32")
        for variant, shape, dtype, last in (
            ("float32", (8, 64, 512, 512), torch.float32, False),
            ("bfloat16", (8, 64, 512, 512), HALF, False),
            ("channels_last", (8, 256, 128, 128), torch.float32, True),
        )
    ),
    *(
        Case("feature_matching", variant, (8, 64, 512, 512), matched(1), (2 + sign, 1 + sign), dtype, False,
             variant == "float32")
        for variant, dtype, sign in (("float32", torch.float32, 1 / 4), ("bfloat16", HALF, 1 / 2))
    ),
    *(
        Case("frequency_distance", variant, (8, 1, 3, 1080, 1920), call, (3, 4),
             all_architectures=variant == "of images")
        for variant, call in (
            ("of images", frequency_distance),
            ("power, logarithm", lambda x: frequency_distance(x, alpha=0.5, log_matrix=True)),
        )
    ),
    *(
        Case(f"adversarial, {side}", "524288 logits", (8, 1, 256, 256), call, (floor, floor),
             all_architectures=True)
        for side, floor, call in (
            ("discriminator", 4, discriminator_call),
            ("generator", 2, lambda x: generator_loss(x, None, "cross_entropy")),
        )
    ),
    Case("side_losses", "524288 logits, one side", (8, 1, 256, 256), lambda x: sides_call(x, 1), (2, 1),
         all_architectures=True),
    *(
        Case(op, variant, shape, call, (0, 0), HALF if "bfloat16" in variant else torch.float32,
             all_architectures=op in SUM_ALONE, passes=NEAR_IDENTITY if op == "perspective_warp" else (),
             table="small")
        for op, variant, shape, call in (
            ("yuv_l2", "images", IMAGES, lambda x: ops.yuv_l2(x, like(x), (1.0, 100.0, 50.0), 3.0)[0]),
            ("pixel_loss", "images", IMAGES, pixels()),
            ("pixel_loss", "images, all terms", IMAGES, pixels(sobel_weight=0.1, tv_weight=0.1)),
            ("photometric", "images", IMAGES, photometric),
            ("photometric", "images, numbers", IMAGES, lambda x: ops.photometric(x, noise=0.1, seed=3)),
            ("blur", "images", IMAGES, lambda x: ops.blur(x, drawn(x.shape[0], 7, 7))),
            ("perspective_warp", "images", IMAGES, lambda x: warped(x, torch.float64)),
            ("perspective_warp", "images, float32 matrices", IMAGES, lambda x: warped(x, torch.float32)),
            ("ssim", "images", IMAGES, lambda x: losses.ssim_loss(x, like(x), check_range=False)),
            ("squared_norm", "images", IMAGES, ops.squared_norm),
            ("squared_norm", "features", FEATURES, ops.squared_norm),
            ("gradient_budget", "images", IMAGES, budget_of(4)),
            ("bias_act", "swish of features", FEATURES, biased_swish),
            ("bias_leaky_relu", "features", FEATURES, activated),
            ("bias_leaky_relu", "features, bfloat16", FEATURES, activated),
            ("upfirdn2d", "features, down 2", FEATURES, lambda x: filtered(x, (4, 4), down=2)),
            ("filtered_lrelu", "features", FEATURES, alias_free),
            ("feature_distance", "L1 of features", FEATURES, lambda x: ops.feature_distance(x, like(x))),
            ("feature_distance", "LPIPS of features", FEATURES, lpips),
            ("feature_moments", "features", FEATURES, moments),
            ("feature_matching", "12 of features", FEATURES, matched(12)),
            ("frequency_distance", "images", (4, 1, 3, 64, 64), frequency_distance),
            ("adversarial, discriminator", "logits", LOGITS, discriminator_call),
            ("adversarial, discriminator", "logits, bfloat16", LOGITS, discriminator_call),
            ("adversarial, discriminator", "logits, relativistic", LOGITS,
             lambda x: discriminator_call(x, "relativistic")),
            ("adversarial, discriminator", "logits of 3 images", (3, *LOGITS[1:]), discriminator_call),
            ("adversarial, generator", "logits", LOGITS, lambda x: generator_loss(x, None, "cross_entropy")),
            ("side_losses", "logits, one side", LOGITS, lambda x: sides_call(x, 1)),
            ("side_losses", "3 scales", LOGITS, sides_call),
            ("side_losses", "3 scales, bfloat16", LOGITS, sides_call),
            ("side_losses", "3 scales, loss only", LOGITS,
             lambda x: sides_call(x, with_statistics=False)),
        )
    ),
)  # fmt: skip
