"""blur against grouped convolution in eager PyTorch, and kornia's.

Run by `fastgan bench blur`. kornia is measured if it is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.augment import random_blur_kernels
from fastgan.bench.ops.image_op import measure_image_op
from fastgan.ops import blur

# Without the reference, which goes tap by tap: no realistic alternative.
PROVIDERS = ["fastgan", "eager convolution", "kornia"]


def setup(provider: str, image: Tensor) -> Callable[[Tensor], Tensor]:
    """The provider's blur(image) with 7x7 kernels, half Gaussians and half lines, none the identity."""
    kernels = random_blur_kernels(image.shape[0], torch.Generator(image.device).manual_seed(0), (0.5, 0.5))

    def convolution(image: Tensor) -> Tensor:
        batch, channels, height, width = image.shape
        weights = kernels.repeat_interleave(channels, dim=0)[:, None]
        joined = image.reshape(1, batch * channels, height, width)
        return F.conv2d(joined, weights, padding=3, groups=batch * channels).view(image.shape)

    def kornia(image: Tensor) -> Tensor:
        return filters.filter2d(image, kernels, border_type="constant")

    if provider == "kornia":
        filters = pytest.importorskip("kornia.filters")
    return {
        "fastgan": lambda image: blur(image, kernels),
        "eager convolution": convolution,
        "kornia": kornia,
    }[provider]


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1, 2])
def test_blur(measure, device, size_index, provider, mode):
    measure_image_op(
        measure, op="blur", setup=setup, provider=provider, device=device, size_index=size_index, mode=mode
    )
