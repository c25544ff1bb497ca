"""jpeg_round_trip against the same codec in eager PyTorch, under torch.compile, and kornia's.

Run by `fastgan bench jpeg`. kornia takes part where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.ops import jpeg_round_trip

QUALITY = 50.0
SIZES = {
    "cpu": [(4, 400, 400), (64, 64, 64), (1, 2048, 2048)],
    "cuda": [(4, 400, 400), (32, 400, 400), (64, 64, 64)],
}
PROVIDERS = ["fastgan", "eager reference", "compiled reference", "kornia"]
# forward reads the image and writes it; backward reads a gradient and writes one
FLOOR_IMAGES = {"full": 4, "forward": 2}


def setup(provider: str, size: tuple[int, int, int], device: str) -> tuple[Callable, Tensor, Tensor]:
    """The provider's decode(image), an image that requires grad, and the gradient fed to backward."""
    batch, height, width = size
    image = torch.rand(batch, 3, height, width, device=device, requires_grad=True)

    def reference(image: Tensor) -> Tensor:
        return jpeg_round_trip(image, QUALITY, backend="reference")

    def kornia(image: Tensor) -> Tensor:
        return kornia_enhance.jpeg_codec_differentiable(image, quality)

    if provider == "kornia":
        kornia_enhance = pytest.importorskip("kornia.enhance")
        quality = torch.tensor([QUALITY], device=device)
    decoders = {
        "fastgan": lambda image: jpeg_round_trip(image, QUALITY),
        "eager reference": reference,
        "compiled reference": torch.compile(reference, fullgraph=True),
        "kornia": kornia,
    }
    return decoders[provider], image, torch.rand_like(image)


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1, 2])
def test_jpeg(measure, device, size_index, provider, mode):
    size = SIZES[device][size_index]
    if size_index and provider != "fastgan":
        pytest.skip("the other sizes show how fastgan scales")
    decode, image, gradient = setup(provider, size, device)

    def forward() -> Tensor:
        return decode(image)

    def full() -> None:
        image.grad = None
        forward().backward(gradient)

    @torch.no_grad()
    def forward_only() -> Tensor:
        return decode(image)

    measure(
        op="jpeg",
        provider=provider,
        size="{}x3x{}x{}".format(*size),
        mode=mode,
        run=full if mode == "full" else forward_only,
        floor_bytes=FLOOR_IMAGES[mode] * image.numel() * image.element_size(),
        forward=forward if mode == "full" else None,
        inputs=(image,),
    )
