"""jpeg_round_trip against the same codec in eager PyTorch, under torch.compile, and kornia's.

Run by `fastgan bench jpeg`. kornia is measured if it is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.bench.ops.image_op import measure_image_op
from fastgan.ops import jpeg_round_trip

QUALITY = 50.0
PROVIDERS = ["fastgan", "eager reference", "compiled reference", "kornia"]


def setup(provider: str, image: Tensor) -> Callable[[Tensor], Tensor]:
    """The provider's decode(image)."""

    def reference(image: Tensor) -> Tensor:
        return jpeg_round_trip(image, QUALITY, backend="reference")

    def kornia(image: Tensor) -> Tensor:
        return kornia_enhance.jpeg_codec_differentiable(image, quality)

    if provider == "kornia":
        kornia_enhance = pytest.importorskip("kornia.enhance")
        quality = torch.tensor([QUALITY], device=image.device)
    return {
        "fastgan": lambda image: jpeg_round_trip(image, QUALITY),
        "eager reference": reference,
        "compiled reference": torch.compile(reference, fullgraph=True),
        "kornia": kornia,
    }[provider]


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1, 2])
def test_jpeg(measure, device, size_index, provider, mode):
    measure_image_op(
        measure, op="jpeg", setup=setup, provider=provider, device=device, size_index=size_index, mode=mode
    )
