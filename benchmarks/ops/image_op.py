"""Sizes, modes and floors that the benchmarks of image-to-image ops share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

# The first size is compared with peers; the others show how fastgan scales.
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
    shapes = [(batch, 3, height, width) for batch, height, width in SIZES[device]]
    shape = shapes[size_index]
    image, first_image = (torch.rand(s, device=device, requires_grad=True) for s in (shape, shapes[0]))
    function = setup(provider, image)

    def run_on(image: Tensor, function: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        gradient = torch.rand_like(image)

        def full() -> None:
            image.grad = None
            function(image).backward(gradient)

        @torch.no_grad()
        def forward() -> None:
            function(image)

        return full if mode == "full" else forward

    first = None
    if size_index:
        first = run_on(first_image, setup(provider, first_image)), first_image.numel()
    measure(
        op=op,
        provider=provider,
        size="x".join(map(str, shape)),
        mode=mode,
        run=run_on(image, function),
        floor_bytes=FLOOR_IMAGES[mode] * image.numel() * image.element_size(),
        forward=(lambda: function(image)) if mode == "full" else None,
        inputs=(image,),
        per_element=first and (image.numel(), *first),
    )
