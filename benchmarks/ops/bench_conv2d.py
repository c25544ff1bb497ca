"""R1 through one convolution under torch.compile, with fastgan's gradients and with PyTorch's; and eager.

Run by `fastgan bench conv2d`. The layers are from the discriminators of StarGAN v2 and DCGAN.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastgan.losses import r1_penalty_of
from fastgan.ops import convert_convolutions

PROVIDERS = ["fastgan", "compiled", "eager"]
# samples, channels, height and width; the layer's output channels, kernel, stride and padding
CASES = {
    "3x3": ((4, 256, 32, 32), (256, 3, 1, 1)),
    "4x4 strided": ((16, 128, 16, 16), (256, 4, 2, 1)),
}


class Critic(nn.Module):
    def __init__(self, channels: int, layer: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, *layer)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(self.convolution(x)).mean(dim=(1, 2, 3))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("case", CASES)
def test_conv2d(measure, device, case, provider):
    size, layer = CASES[case]
    x, critic = torch.randn(size, device=device), Critic(size[1], layer).to(device)
    if provider == "fastgan":
        convert_convolutions(critic)

    def penalty(x: Tensor) -> Tensor:
        return r1_penalty_of(critic, x)

    function = penalty if provider == "eager" else torch.compile(penalty, fullgraph=True)

    def forward() -> Tensor:
        return function(x)

    def full() -> None:
        critic.zero_grad()
        forward().backward()

    measure(
        op="conv2d",
        provider=provider,
        size=case,
        mode="full",
        run=full,
        floor_bytes=x.numel() * x.element_size(),
        forward=forward,
        inputs=(x, *critic.parameters()),
        compiles=provider != "eager",
    )
