"""photometric against the same chain of operations as in StegaStamp's ports, eager and compiled.

Run by `fastgan bench photometric`. The chains draw their noise with torch.randn.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.bench.ops.image_op import measure_image_op
from fastgan.ops import photometric
from fastgan.reference.photometric import photometric as chain_of_operations

PROVIDERS = ["fastgan", "eager chain", "compiled chain"]


def setup(provider: str, image: Tensor) -> Callable[[Tensor], Tensor]:
    """The provider's distort(image), with one set of parameters per image."""
    batch = image.shape[0]
    strength, contrast, desaturation = torch.rand(3, batch, device=image.device)
    strength, contrast = 0.02 * strength, contrast + 0.5
    offset = 0.6 * torch.rand(batch, 3, device=image.device) - 0.3

    def chain(image: Tensor) -> Tensor:
        noise = torch.randn_like(image) * strength[:, None, None, None]
        return chain_of_operations(image, noise, contrast, offset, desaturation)

    return {
        "fastgan": lambda image: photometric(
            image, noise=strength, contrast=contrast, offset=offset, desaturation=desaturation
        ),
        "eager chain": chain,
        "compiled chain": torch.compile(chain, fullgraph=True),
    }[provider]


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1, 2])
def test_photometric(measure, device, size_index, provider, mode):
    measure_image_op(
        measure, op="photometric", setup=setup, provider=provider, device=device, size_index=size_index,
        mode=mode,
    )  # fmt: skip
