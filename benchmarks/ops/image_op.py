"""What the benchmarks of ops from an image to an image share: sizes, modes and floors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

# The first is compared with peers; the others show how fastgan scales.
SIZES = {
    "cpu": [(4, 400, 400), (64, 64, 64), (1, 2048, 2048)],
    "cuda": [(4, 400, 400), (32, 400, 400), (64, 64, 64)],
}
# forward reads the image and writes it; backward reads a gradient and writes one
FLOOR_IMAGES = {"full": 4, "forward": 2}


def measure_image_op(
    measure: Callable,
    *,
    op: str,
    setup: Callable[[str, Tensor], Callable[[Tensor], Tensor]],
    provider: str,
    device: str,
    size_index: int,
    mode: str,
) -> None:
    """Measures function(image) of `setup(provider, image)`, alone or with its backward pass."""
    if size_index and provider != "fastgan":
        pytest.skip("the other sizes show how fastgan scales")
    batch, height, width = SIZES[device][size_index]
    image = torch.rand(batch, 3, height, width, device=device, requires_grad=True)
    gradient = torch.rand_like(image)
    function = setup(provider, image)

    def forward() -> Tensor:
        return function(image)

    def full() -> None:
        image.grad = None
        forward().backward(gradient)

    @torch.no_grad()
    def forward_only() -> Tensor:
        return function(image)

    measure(
        op=op,
        provider=provider,
        size=f"{batch}x3x{height}x{width}",
        mode=mode,
        run=full if mode == "full" else forward_only,
        floor_bytes=FLOOR_IMAGES[mode] * image.numel() * image.element_size(),
        forward=forward if mode == "full" else None,
        inputs=(image,),
    )
