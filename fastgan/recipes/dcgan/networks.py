"""DCGAN's generator and discriminator, for images of 32 to 256 pixels.

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016: only strided convolutions, batch normalization on all layers but G's last
and D's first and last, weights drawn from N(0, 0.02) and batch normalization's gains from N(1, 0.02). No
convolution has a bias; the only offsets are those of the normalizations, as in the authors' code. At 64
pixels and width 128 the generator's layers have 1024, 512, 256 and 128 channels; each doubling of the size
adds a layer, none wider than 1024. Differences from the paper, shared by most ports:

* Kernels are 4x4, where the authors' code and figure have 5x5.
* The generator begins with a transposed convolution, normalized per channel; the authors' begins with a dense
  layer, whose units are normalized individually.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fastgan.ops import bias_leaky_relu
from fastgan.ops._checks import check_one_of
from fastgan.training.batch_norm import BatchNorm2d

IMAGE_SIZES = (32, 64, 128, 256)
NORMS = ("batch", "instance", "none")
LARGEST_FACTOR = 8  # of the width, reached at 4x4: 1024 channels in the paper
LARGEST_GROUP = 4  # of samples for the minibatch standard deviation (StyleGAN)


def _widths(image_size: int, width: int) -> list[int]:
    """Channels at half the image's size, at a quarter, and so on down to 4x4."""
    check_one_of("image_size", image_size, IMAGE_SIZES)
    halvings = image_size.bit_length() - 3
    return [width * min(2**i, LARGEST_FACTOR) for i in range(halvings)]


def _initialize(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


class DCGANGenerator(nn.Module):
    """Latents to images.

    Args:
        image_size: 32, 64, 128 or 256.
        channels: of the images.
        z_dim: length of a latent.
        width: channels of the last hidden layer (paper: 128); doubled at each halving, up to 8 times.

    Raises:
        ValueError: another size.
    """

    def __init__(self, image_size: int = 64, channels: int = 3, z_dim: int = 100, width: int = 128) -> None:
        super().__init__()
        self.z_dim = z_dim
        widths = _widths(image_size, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(z_dim, widths[0], 4, 1, 0, bias=False)]
        for wide, narrow in pairwise(widths):
            layers += [BatchNorm2d(wide), nn.ReLU(inplace=True)]
            layers.append(nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False))
        layers += [BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        """(N, z_dim), of the distribution used in training, to N C H W in [-1, 1]."""
        return self.layers(z[:, :, None, None])


class DCGANDiscriminator(nn.Module):
    """Images to logits.

    Args:
        image_size, channels: as the generator's.
        width: channels of the first layer.
        norm: "batch" (paper), or "instance" or "none" for per-sample gradient penalties; "none" adds a bias
            instead of the normalization's shift.
        use_spectral_norm: on every convolution (Miyato et al., ICLR 2018).
        minibatch_std: give the last layer, as one more channel, the standard deviation among four samples,
            averaged over pixels and channels (Karras et al., ICLR 2018), which reveals a collapse. Each
            process uses its own samples.

    Raises:
        ValueError: another size or norm.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        width: int = 128,
        norm: str = "batch",
        use_spectral_norm: bool = False,
        minibatch_std: bool = False,
    ) -> None:
        super().__init__()
        check_one_of("norm", norm, NORMS)
        widths = _widths(image_size, width)
        self.minibatch_std = minibatch_std
        self.layers = nn.Sequential(
            *(
                _Halving(narrow, wide, norm if index > 0 else None)
                for index, (narrow, wide) in enumerate(zip([channels, *widths], widths, strict=False))
            )
        )
        self.last = nn.Conv2d(widths[-1] + minibatch_std, 1, 4, 1, 0, bias=False)
        _initialize(self)
        if use_spectral_norm:
            for layer in list(self.modules()):
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, image: Tensor) -> Tensor:
        """N C H W in [-1, 1] to (N,)."""
        x = self.layers(image)
        if self.minibatch_std:
            x = _with_minibatch_std(x)
        return self.last(x).flatten()


class _Halving(nn.Module):
    """Convolution, normalization (a bias for "none"), leaky ReLU; halves height and width."""

    def __init__(self, narrow: int, wide: int, norm: str | None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(narrow, wide, 4, 2, 1, bias=False)
        self.norm: nn.Module = nn.Identity()
        if norm == "batch":
            self.norm = BatchNorm2d(wide)
        elif norm == "instance":
            self.norm = nn.InstanceNorm2d(wide, affine=True)
        self.bias = nn.Parameter(torch.zeros(wide)) if norm == "none" else None

    def forward(self, x: Tensor) -> Tensor:
        return bias_leaky_relu(self.norm(self.convolution(x)), self.bias, slope=0.2)


def _with_minibatch_std(x: Tensor) -> Tensor:
    """Appends a channel: the deviation among samples n, n + N / G, n + 2 N / G, ..., for groups of G."""
    count = x.shape[0]
    group = next(size for size in range(min(LARGEST_GROUP, count), 0, -1) if count % size == 0)
    groups = x.float().unflatten(0, (group, -1))
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    plane = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, plane.to(x.dtype)], 1)
