"""StarGAN v2's generator, mapping network, style encoder and discriminator, for images and for latents.

Choi, Uh, Yoo and Ha, "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020, appendix. The
mapping network consists of linear layers and ReLUs, the others of residual blocks with leaky ReLUs of slope
0.2, whose two summed branches are divided by sqrt(2) to keep the variance. At 256 pixels and base_width 64
they are the authors' for AFHQ. Differences:

* Widths and depths are arguments, so that 4x32x32 latents are supported, too.
* The generator's convolutions, except for the last, have no biases: a constant per channel is passed on by
  the shortcuts only, and an instance normalization, at the latest the one at the end, subtracts it. The
  gradient of such a bias would be mere rounding errors, which Adam would scale to the size of any other.
* The authors' generator for CelebA-HQ is not included: it halves five times, to 8x8; its decoder's blocks
  have no shortcut, and therefore no division by sqrt(2); and skip connections pass on the high frequencies of
  regions found by a network for facial landmarks.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.ops import bias_leaky_relu

SMALLEST = 4  # height and width at the end of style encoder and discriminator


def check_size(image_size: int) -> None:
    """Raises a ValueError for a size that is not a power of two, or below 8."""
    if image_size < 2 * SMALLEST or image_size & (image_size - 1):
        raise ValueError(f"image_size must be a power of two and at least 8, got {image_size}")


def default_downs(image_size: int) -> int:
    """Halvings within the generator that leave 16x16, as in the paper for AFHQ; at least one."""
    return max(1, image_size.bit_length() - 5)


def _widths(base_width: int, max_width: int, halvings: int) -> list[int]:
    return [min(base_width * 2**index, max_width) for index in range(halvings + 1)]


def _initialize(module: nn.Module) -> None:
    """He initialization of all weights; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _activate(x: Tensor) -> Tensor:
    return bias_leaky_relu(x, slope=0.2)


def _shortcut(narrow: int, wide: int) -> nn.Module:
    return nn.Identity() if narrow == wide else nn.Conv2d(narrow, wide, 1, bias=False)


class ResidualBlock(nn.Module):
    """Convolutions after activations, beside a shortcut.

    Args:
        inputs, outputs: channels.
        normalize: instance normalization before each activation, with a scale and a shift per channel; the
            convolutions then have no biases.
        halve: average-pool 2x2 pixels between the convolutions, and in the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, normalize: bool = False, halve: bool = False) -> None:
        super().__init__()
        self.halve = halve
        self.norm1 = nn.InstanceNorm2d(inputs, affine=True) if normalize else nn.Identity()
        self.norm2 = nn.InstanceNorm2d(inputs, affine=True) if normalize else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, bias=not normalize)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=not normalize)
        self.shortcut = _shortcut(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N C H W to N C' H W, or half of H and W."""
        residual = self.conv1(_activate(self.norm1(x)))
        direct = self.shortcut(x)
        if self.halve:
            residual, direct = F.avg_pool2d(residual, 2), F.avg_pool2d(direct, 2)
        residual = self.conv2(_activate(self.norm2(residual)))
        return (direct + residual) / math.sqrt(2)


class AdaptiveInstanceNorm(nn.Module):
    """(1 + scale) normalized + shift, with both from a style code (Huang and Belongie, ICCV 2017)."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """N C H W and (N, style_dim) to N C H W."""
        scale, shift = self.affine(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + scale) * F.instance_norm(x) + shift


class StyledBlock(nn.Module):
    """A residual block whose normalizations depend on the style.

    Args:
        inputs, outputs: channels.
        style_dim: length of a style code.
        enlarge: repeat each pixel 2x2 before the convolutions, and in the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, style_dim: int, enlarge: bool = False) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.norm1 = AdaptiveInstanceNorm(style_dim, inputs)
        self.norm2 = AdaptiveInstanceNorm(style_dim, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = _shortcut(inputs, outputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """N C H W and (N, style_dim) to N C' H W, or twice H and W."""
        residual = _activate(self.norm1(x, style))
        direct = self.shortcut(
            x
        )  # before the upsampling, with which a 1x1 convolution commutes: fewer pixels
        if self.enlarge:
            residual, direct = (F.interpolate(y, scale_factor=2, mode="nearest") for y in (residual, direct))
        residual = self.conv2(_activate(self.norm2(self.conv1(residual), style)))
        return (direct + residual) / math.sqrt(2)


class StarGANv2Generator(nn.Module):
    """Maps an image and a style code to the image in that style.

    Args:
        image_size: height and width, a power of two.
        channels: of the images; 4 for the latents of Stable Diffusion's VAE.
        style_dim: length of a style code.
        base_width: channels at full size, doubled at each halving.
        max_width: bound of the channels.
        downs: halvings; 0: as many as leave 16x16.

    Raises:
        ValueError: a size that is not a power of two, or so many halvings that less than 4x4 remains.
    """

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 3,
        style_dim: int = 64,
        base_width: int = 64,
        max_width: int = 512,
        downs: int = 0,
    ) -> None:
        super().__init__()
        check_size(image_size)
        downs = downs or default_downs(image_size)
        if image_size >> downs < SMALLEST:
            raise ValueError(f"{downs} halvings leave less than 4x4 of {image_size}x{image_size}")
        widths = _widths(base_width, max_width, downs)
        widest = widths[-1]
        self.first = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.encode = nn.Sequential(
            *(ResidualBlock(a, b, normalize=True, halve=True) for a, b in pairwise(widths)),
            *(ResidualBlock(widest, widest, normalize=True) for _ in range(2)),
        )
        self.decode = nn.ModuleList(
            [
                *(StyledBlock(widest, widest, style_dim) for _ in range(2)),
                *(StyledBlock(a, b, style_dim, enlarge=True) for a, b in pairwise(widths[::-1])),
            ]
        )
        self.norm = nn.InstanceNorm2d(widths[0], affine=True)
        self.last = nn.Conv2d(widths[0], channels, 1)
        _initialize(self)

    def forward(self, image: Tensor, style: Tensor) -> Tensor:
        """N C H W and (N, style_dim) to N C H W, unbounded; images are in [-1, 1]."""
        x = self.encode(self.first(image))
        for block in self.decode:
            x = block(x, style)
        return self.last(_activate(self.norm(x)))


class MappingNetwork(nn.Module):
    """Maps noise and a domain to a style code.

    Args:
        num_domains: at least 1.
        z_dim: length of a noise vector.
        style_dim: length of a style code.
        width: of the eight linear layers: four shared by all domains, then four per domain.
    """

    def __init__(self, num_domains: int, z_dim: int = 16, style_dim: int = 64, width: int = 512) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.shared = _layers(z_dim, width, 4)
        self.own = nn.ModuleList(
            nn.Sequential(_layers(width, width, 3), nn.Linear(width, style_dim)) for _ in range(num_domains)
        )
        _initialize(self)

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:
        """(N, z_dim), standard normal, and (N,) int64 to (N, style_dim)."""
        x = self.shared(z)
        return _select_domain(torch.stack([layers(x) for layers in self.own], dim=1), domain)


def _layers(inputs: int, width: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [nn.Linear(width if index else inputs, width), nn.ReLU()]
    return nn.Sequential(*layers)


def _select_domain(outputs: Tensor, domain: Tensor) -> Tensor:
    """Selects each sample's domain: (N, D, ...) and (N,) to (N, ...)."""
    return outputs[torch.arange(domain.shape[0], device=domain.device), domain]


class _Halvings(nn.Sequential):
    """N C H W to (N, width): residual blocks down to 4x4, then a convolution of that size."""

    def __init__(self, image_size: int, channels: int, base_width: int, max_width: int) -> None:
        check_size(image_size)
        widths = _widths(base_width, max_width, (image_size // SMALLEST).bit_length() - 1)
        self.width = widths[-1]
        super().__init__(
            nn.Conv2d(channels, widths[0], 3, 1, 1),
            *(ResidualBlock(a, b, halve=True) for a, b in pairwise(widths)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(self.width, self.width, SMALLEST),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )


class StyleEncoder(nn.Module):
    """Maps an image and its domain to its style code.

    Args:
        num_domains: at least 1.
        image_size, channels, style_dim, base_width, max_width: as the generator's.

    Raises:
        ValueError: a size that is no power of two, or below 8.
    """

    def __init__(
        self,
        num_domains: int,
        image_size: int = 256,
        channels: int = 3,
        style_dim: int = 64,
        base_width: int = 64,
        max_width: int = 512,
    ) -> None:
        super().__init__()
        self.shared = _Halvings(image_size, channels, base_width, max_width)
        self.own = nn.ModuleList(nn.Linear(self.shared.width, style_dim) for _ in range(num_domains))
        _initialize(self)

    def forward(self, image: Tensor, domain: Tensor) -> Tensor:
        """N C H W and (N,) int64 to (N, style_dim)."""
        x = self.shared(image)
        return _select_domain(torch.stack([layer(x) for layer in self.own], dim=1), domain)


class StarGANv2Discriminator(nn.Module):
    """Maps an image and a domain to the logit of being a real image of that domain.

    Args:
        num_domains, image_size, channels, base_width, max_width: as the style encoder's.

    Raises:
        ValueError: a size that is no power of two, or below 8.
    """

    def __init__(
        self,
        num_domains: int,
        image_size: int = 256,
        channels: int = 3,
        base_width: int = 64,
        max_width: int = 512,
    ) -> None:
        super().__init__()
        self.shared = _Halvings(image_size, channels, base_width, max_width)
        self.heads = nn.Linear(self.shared.width, num_domains)
        _initialize(self)

    def forward(self, image: Tensor, domain: Tensor) -> Tensor:
        """N C H W and (N,) int64 to (N,)."""
        return _select_domain(self.heads(self.shared(image)), domain)
