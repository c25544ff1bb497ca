"""The discriminators that penalties are benchmarked on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class Residual(nn.Module):
    """A pre-activated residual block that halves the image."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1)
        self.second = nn.Conv2d(width, wider, 3, 1, 1)
        self.shortcut = nn.Conv2d(width, wider, 1, bias=False) if wider != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.avg_pool2d(self.first(activated(x)), 2)
        inner = self.second(activated(inner))
        return (F.avg_pool2d(self.shortcut(x), 2) + inner) / 2**0.5


class StarGANv2Critic(nn.Module):
    """StarGAN v2's discriminator: residual blocks down to 4x4, one logit per domain.

    Source: Choi et al., "StarGAN v2: Diverse Image Synthesis for Multiple Domains", 2020: the first layer has
    2^14 / image_size channels, which double up to 512.
    """

    def __init__(self, image_size: int = 64, domains: int = 2) -> None:
        super().__init__()
        width = 2**14 // image_size
        self.stem = nn.Conv2d(3, width, 3, 1, 1)
        self.blocks = nn.Sequential()
        while image_size > 4:
            self.blocks.append(Residual(width, min(2 * width, 512)))
            width, image_size = min(2 * width, 512), image_size // 2
        self.last = nn.Conv2d(width, width, 4)
        self.head = nn.Conv2d(width, domains, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = activated(self.blocks(self.stem(x)))
        logits = self.head(activated(self.last(x))).flatten(1)
        domain = torch.arange(len(x), device=x.device) % logits.shape[1]
        return logits.gather(1, domain[:, None]).squeeze(1)


class DCGANCritic(nn.Module):
    """DCGAN's discriminator: strided convolutions down to 4x4, with batch norm after all but first and last.

    Source: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional
    Generative Adversarial Networks", 2016.
    """

    def __init__(self, image_size: int = 64, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 4, 2, 1)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        while (image_size := image_size // 2) > 4:
            self.convolutions.append(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False))
            self.norms.append(nn.BatchNorm2d(2 * width))
            width *= 2
        self.last = nn.Conv2d(width, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = activated(self.first(x))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = activated(norm(convolution(x)))
        return self.last(x).flatten()


CRITICS: dict[str, Callable[[int], nn.Module]] = {"starganv2": StarGANv2Critic, "dcgan": DCGANCritic}


def make_critic(name: str, image_size: int) -> nn.Module:
    """A critic with reproducible weights."""
    torch.manual_seed(0)
    return CRITICS[name](image_size)
