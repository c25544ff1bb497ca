"""The calls whose launches docs/gpu-budgets.md has: each op at a size where memory decides, both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan import ops
from fastgan.ops.adversarial import discriminator_loss, generator_loss

HALF = torch.bfloat16
LARGE = (8, 3, 1080, 1920)
ODD = (8, 3, 1079, 1919)


@dataclass(frozen=True)
class Case:
    op: str
    variant: str
    shape: tuple[int, ...]
    call: Callable[[Tensor], Tensor]
    """Of a tensor of the shape, to a tensor that has a gradient."""
    floor: tuple[float, float]
    """How often as many bytes as that tensor has must move: forward, and backward from a gradient."""
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    all_architectures: bool = False
    passes: tuple[int, ...] = ()
    """How often the backward kernel's loops run whose ends the device finds."""

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


def activated(x: Tensor) -> Tensor:
    return ops.bias_leaky_relu(x, drawn(256).requires_grad_())


GAME = {"game": "cross_entropy"}
MASKS = 1 / 12  # a byte for each pixel of three float32 channels
CODES = 1 / 4
# Of perspective_warp: rows of a window, fours of columns, and no output pixels looked through beyond it, as
# the interpreter's tests find for StegaStamp's warps.
NEAR_IDENTITY = (4, 1, 0, 0)
CASES = (
    *image_op("yuv_l2", lambda x: ops.yuv_l2(x, like(x), (1.0, 100.0, 50.0), 3.0)[0], (3, 0), True),
    *image_op("photometric", photometric, (2 + MASKS, 2 + MASKS), True),
    *image_op("blur", lambda x: ops.blur(x, drawn(x.shape[0], 7, 7)), (2, 2), False),
    *image_op(
        "perspective_warp",
        lambda x: ops.perspective_warp(x, drawn(x.shape[0], 3, 3, dtype=torch.float64)), (2, 2), False,
        NEAR_IDENTITY,
    ),
    *image_op("squared_norm", ops.squared_norm, (1, 2), False),
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
        Case("feature_distance", f"{name}, {kind}", shape, features(weighed, p), (3, 0), dtype, False,
             kind == "float32")
        for kind, dtype in (("float32", torch.float32), ("bfloat16", HALF))
        for name, weighed, p, shape in (
            ("L1", False, 1, (8, 64, 512, 512)), ("LPIPS", True, 2, (8, 256, 128, 128)),
        )
    ),
    *(
        Case(f"adversarial, {side}", variant, shape, call, (floor, floor), torch.float32, False,
             variant == "524288 logits")
        for variant, shape in (("524288 logits", (8, 1, 256, 256)), ("14400 logits", (16, 1, 30, 30)))
        for side, floor, call in (
            ("discriminator", 4, lambda x: discriminator_loss(x, like(x).requires_grad_(), **GAME)[0]),
            ("generator", 2, lambda x: generator_loss(x, None, **GAME)),
        )
    ),
)  # fmt: skip
