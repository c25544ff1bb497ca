"""yuv_color_l2 against the same loss in eager PyTorch, under torch.compile, and as written in ports.

Run by `fastgan bench yuv_l2`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.losses import yuv_color_l2
from fastgan.reference.yuv_l2 import RGB_TO_YUV, edge_falloff

SCALES, EDGE_GAIN = (1.0, 100.0, 100.0), 10.0
SIZES = {"cpu": [(4, 400, 400), (16, 64, 64)], "cuda": [(4, 400, 400), (32, 400, 400)]}
PROVIDERS = ["fastgan", "eager reference", "compiled reference", "eager port"]
# forward + backward reads x and y once and writes one gradient
FLOOR_IMAGES = {"full": 3, "forward": 2}


def stegastamp_port(x: Tensor, y: Tensor) -> Tensor:
    """The loss as StegaStamp's graph and its ports compute it: both images to YUV, then the difference."""

    def to_yuv(image: Tensor) -> Tensor:
        red, green, blue = image[:, 0:1], image[:, 1:2], image[:, 2:3]
        return torch.cat([r * red + g * green + b * blue for r, g, b in RGB_TO_YUV], dim=1)

    falloff = EDGE_GAIN * edge_falloff(*x.shape[2:], dtype=x.dtype, device=x.device)
    difference = to_yuv(x) - to_yuv(y)
    difference = difference + difference * falloff
    channels = torch.mean(difference**2, dim=(0, 2, 3))
    return torch.dot(channels, channels.new_tensor(SCALES))


def setup(provider: str, size: tuple[int, int, int], device: str) -> tuple[Callable, Tensor, Tensor]:
    """The provider's loss(x, y), and x (which requires grad) and y."""
    batch, height, width = size
    x = torch.rand(batch, 3, height, width, device=device, requires_grad=True)
    y = torch.rand(batch, 3, height, width, device=device)

    def reference(x: Tensor, y: Tensor) -> Tensor:
        return yuv_color_l2(x, y, SCALES, EDGE_GAIN, backend="reference")

    losses = {
        "fastgan": lambda x, y: yuv_color_l2(x, y, SCALES, EDGE_GAIN),
        "eager reference": reference,
        "compiled reference": torch.compile(reference, fullgraph=True),
        "eager port": stegastamp_port,
    }
    return losses[provider], x, y


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1])
def test_yuv_l2(measure, device, size_index, provider, mode):
    size = SIZES[device][size_index]
    loss, x, y = setup(provider, size, device)

    def forward() -> Tensor:
        return loss(x, y)

    def full() -> None:
        x.grad = None
        forward().backward()

    @torch.no_grad()
    def forward_only() -> Tensor:
        return loss(x, y)

    image_bytes = x.numel() * x.element_size()
    measure(
        op="yuv_l2",
        provider=provider,
        size="{}x3x{}x{}".format(*size),
        mode=mode,
        run=full if mode == "full" else forward_only,
        floor_bytes=FLOOR_IMAGES[mode] * image_bytes,
        forward=forward if mode == "full" else None,
        inputs=(x, y),
    )
