"""EnhanceNet's generator and discriminator (Sajjadi, Schoelkopf and Hirsch, ICCV 2017), and its resampling.

The graphs follow the paper's table 1 and the tables of its supplement: 3x3 convolutions throughout, ten
residual blocks at the low resolution, nearest-neighbour upsampling followed by convolutions, and a residual
that is added to the bicubic image. Differences from the authors' code:

* Width and number of blocks are arguments.
* The generator subtracts 0.5 from its input; the authors' subtracts the channel means 0.476, 0.450 and 0.409.
* The bicubic image is PIL's: a = -0.5, with half-pixel centres. The authors' is TensorFlow 0.12's: a = -0.75,
  without half-pixel centres, which shifts the image.
* Images are downscaled by antialiased bicubic filtering; the authors' released code uses PIL's ANTIALIAS,
  which is Lanczos filtering. Both round to 8 bits.
* The discriminator returns logits; the loss applies the sigmoid.
* Weights are initialized as by He et al., except for the generator's last layer, which starts at zero, and
  the last one of each residual block, which is scaled by a tenth: the first output is the bicubic image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (2, 4)


def check_scale(scale: int) -> None:
    """Raises a ValueError for another scale than 2 or 4."""
    if scale not in SCALES:
        raise ValueError(f"scale must be 2 or 4, got {scale!r}")


def bicubic_upscale(image: Tensor, scale: int) -> Tensor:
    """Bicubic upscaling, N C H W to N C scale*H scale*W: the baseline, to which G adds its residual.

    The kernel is that of PIL and MATLAB (a = -0.5); torch's without antialiasing has a = -0.75.
    """
    if image.dtype in (torch.float16, torch.bfloat16):  # for which torch's CPU has none with antialiasing
        return bicubic_upscale(image.float(), scale).to(image.dtype)
    size = (image.shape[-2] * scale, image.shape[-1] * scale)
    return F.interpolate(image, size=size, mode="bicubic", antialias=True)


def low_resolution(image: Tensor, scale: int) -> Tensor:
    """Downscales an image by antialiased bicubic filtering and rounds it to 8 bits, as a file would.

    Args:
        image: N C H W in [0, 1], sides multiples of the scale.

    Raises:
        ValueError: a side is not a multiple of the scale.
    """
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"the image's sides must be multiples of {scale}, got {height}x{width}")
    size = (height // scale, width // scale)
    low = F.interpolate(image, size=size, mode="bicubic", antialias=True)
    return (low.clamp(0, 1) * 255).round() / 255


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(width, width)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class EnhanceNetGenerator(nn.Module):
    """Upscales an image `scale` times in height and width.

    Args:
        scale: 2 or 4.
        width: channels of every layer.
        blocks: residual blocks.

    Raises:
        ValueError: another scale, or no channel or block.
    """

    def __init__(self, scale: int = 4, width: int = 64, blocks: int = 10) -> None:
        super().__init__()
        check_scale(scale)
        for name, count in (("width", width), ("blocks", blocks)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.scale, self.blocks = scale, blocks
        self.first = _conv(3, width)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.up = nn.ModuleList(_conv(width, width) for _ in range(scale.bit_length() - 1))
        self.refine, self.residual = _conv(width, width), _conv(width, 3)
        nn.init.zeros_(self.residual.weight)

    @property
    def radius(self) -> int:
        """The receptive field's radius, in pixels of the input.

        One for each convolution at the low resolution. Those after the upsampling reach 3 pixels of the
        output, and at scale 4 another one 2, in all less than 2 of the input.
        """
        return 1 + 2 * self.blocks + 2

    def forward(self, low: Tensor) -> Tensor:
        """N 3 H W in [0, 1] to N 3 scale*H scale*W, which may slightly exceed [0, 1]."""
        x = self.body(F.relu(self.first(low - 0.5)))
        for conv in self.up:
            x = F.relu(conv(F.interpolate(x, scale_factor=2)))
        residual = self.residual(F.relu(self.refine(x)))
        return bicubic_upscale(low, self.scale) + residual.to(low.dtype)


class EnhanceNetDiscriminator(nn.Module):
    """Scores images of one size.

    Args:
        image_size: height and width; each pair of convolutions halves them.
        channels: widths of the pairs of convolutions, the second of which has stride 2.
        dense: width of the hidden dense layer.

    Raises:
        ValueError: the image is too small to be halved so often, or there are no channels.
    """

    def __init__(
        self,
        image_size: int = 128,
        channels: tuple[int, ...] = (32, 64, 128, 256, 512),
        dense: int = 1024,
    ) -> None:
        super().__init__()
        if not channels or min(*channels, dense) < 1:
            raise ValueError(f"channels and dense must be positive, got {channels!r} and {dense}")
        if image_size < 2 ** len(channels):
            raise ValueError(
                f"a discriminator that halves its image {len(channels)} times needs at least "
                f"{2 ** len(channels)} pixels on each side, got {image_size}"
            )
        layers: list[nn.Module] = []
        side, inputs = image_size, 3
        for outputs in channels:
            layers += [_conv(inputs, outputs), nn.LeakyReLU(0.2)]
            layers += [_conv(outputs, outputs, stride=2), nn.LeakyReLU(0.2)]
            side, inputs = -(-side // 2), outputs
        self.features = nn.Sequential(*layers)
        self.judge = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs * side * side, dense), nn.LeakyReLU(0.2), nn.Linear(dense, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """N 3 H W in [0, 1] to the logits (N, 1)."""
        return self.judge(self.features(2 * image - 1))
