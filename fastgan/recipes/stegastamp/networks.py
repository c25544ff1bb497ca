"""StegaStamp's encoder, decoder and discriminator (Tancik, Mildenhall and Ng, CVPR 2020).

The graphs follow the published `models.py`. Differences:

* Image sides may be any multiples of 16 (the original is fixed to 400x400; the encoder halves four times).
* The 2x2 convolutions after each upsampling are 3x3, as in the PyTorch ports: a 2x2 kernel with "same"
  padding shifts the image by half a pixel.
* Strided convolutions pad symmetrically; TensorFlow's "same" pads right and bottom only.
* The encoder's `conv10`, which the original computes and never uses, is left out.
* The discriminator returns one score per image; the loss takes the batch mean.

Weights are initialized as in Keras: He normal in the encoder, Glorot uniform in the decoder and the
discriminator, all biases zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ImageSize = int | tuple[int, int]


def image_height_width(image_size: ImageSize) -> tuple[int, int]:
    """(height, width) of an image size given as one number or two.

    Raises:
        ValueError: a side is not a positive multiple of 16.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height <= 0 or width <= 0 or height % 16 or width % 16:
        raise ValueError(
            f"StegaStamp's image size must be a multiple of 16 on both sides, got {height}x{width}"
        )
    return height, width


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def _initialize(module: nn.Module, weights) -> None:
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weights(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class StegaStampEncoder(nn.Module):
    """Computes the residual that, added to an image, hides a secret.

    Args:
        secret_size: bits of the secret.
        image_size: height and width, multiples of 16.
    """

    def __init__(self, secret_size: int = 100, image_size: ImageSize = 400) -> None:
        super().__init__()
        height, width = image_height_width(image_size)
        self.grid = (3, height // 8, width // 8)
        self.secret_dense = nn.Linear(secret_size, 3 * (height // 8) * (width // 8))
        self.conv1 = _conv(6, 32)
        self.conv2 = _conv(32, 32, stride=2)
        self.conv3 = _conv(32, 64, stride=2)
        self.conv4 = _conv(64, 128, stride=2)
        self.conv5 = _conv(128, 256, stride=2)
        self.up6, self.conv6 = _conv(256, 128), _conv(256, 128)
        self.up7, self.conv7 = _conv(128, 64), _conv(128, 64)
        self.up8, self.conv8 = _conv(64, 32), _conv(64, 32)
        self.up9, self.conv9 = _conv(32, 32), _conv(70, 32)
        self.residual = _conv(32, 3, kernel=1)
        _initialize(self, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"))
        # Gain 1, because no activation follows the last layer.
        nn.init.kaiming_normal_(self.residual.weight, nonlinearity="linear")

    def forward(self, secret: Tensor, image: Tensor) -> Tensor:
        """(N, secret_size) bits as 0. or 1. and (N, 3, H, W) in [0, 1] to the residual (N, 3, H, W)."""
        hidden = F.relu(self.secret_dense(secret - 0.5)).unflatten(1, self.grid)
        inputs = torch.cat([F.interpolate(hidden, scale_factor=8), image - 0.5], dim=1)
        conv1 = F.relu(self.conv1(inputs))
        conv2 = F.relu(self.conv2(conv1))
        conv3 = F.relu(self.conv3(conv2))
        conv4 = F.relu(self.conv4(conv3))
        conv5 = F.relu(self.conv5(conv4))
        conv6 = self._up(self.up6, self.conv6, conv5, conv4)
        conv7 = self._up(self.up7, self.conv7, conv6, conv3)
        conv8 = self._up(self.up8, self.conv8, conv7, conv2)
        conv9 = self._up(self.up9, self.conv9, conv8, conv1, inputs)
        return self.residual(conv9)

    @staticmethod
    def _up(up: nn.Conv2d, conv: nn.Conv2d, x: Tensor, skip: Tensor, *extra: Tensor) -> Tensor:
        upsampled = F.relu(up(F.interpolate(x, scale_factor=2)))
        return F.relu(conv(torch.cat([skip, upsampled, *extra], dim=1)))


class StegaStampDecoder(nn.Module):
    """Reads the secret: a spatial transformer rectifies the image, convolutions read the bits.

    Args:
        secret_size: bits of the secret.
        image_size: height and width, multiples of 16.
    """

    def __init__(self, secret_size: int = 100, image_size: ImageSize = 400) -> None:
        super().__init__()
        height, width = image_height_width(image_size)
        pixels_after = lambda halvings: -(-height // 2**halvings) * -(-width // 2**halvings)  # noqa: E731
        self.transformer = nn.Sequential(
            _conv(3, 32, stride=2), nn.ReLU(),
            _conv(32, 64, stride=2), nn.ReLU(),
            _conv(64, 128, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(128 * pixels_after(3), 128), nn.ReLU(),
        )  # fmt: skip
        self.affine = nn.Linear(128, 6)
        self.reader = nn.Sequential(
            _conv(3, 32, stride=2), nn.ReLU(),
            _conv(32, 32), nn.ReLU(),
            _conv(32, 64, stride=2), nn.ReLU(),
            _conv(64, 64), nn.ReLU(),
            _conv(64, 64, stride=2), nn.ReLU(),
            _conv(64, 128, stride=2), nn.ReLU(),
            _conv(128, 128, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(128 * pixels_after(5), 512), nn.ReLU(),
            nn.Linear(512, secret_size),
        )  # fmt: skip
        _initialize(self, nn.init.xavier_uniform_)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the logits of the bits, (N, secret_size)."""
        image = image - 0.5
        theta = self.affine(self.transformer(image)).unflatten(1, (2, 3))
        # align_corners as in the original's transformer; padding with zeros is mid-grey.
        grid = F.affine_grid(theta.to(image.dtype), list(image.shape), align_corners=True)
        return self.reader(F.grid_sample(image, grid, align_corners=True))


class StegaStampDiscriminator(nn.Module):
    """Scores how much, and where, an image looks stamped.

    Args:
        channels: width of each stride-2 convolution. The original has (8, 16, 32, 64);
            (8, 16, 32, 64, 128, 256) is a stronger one.
        activation: "relu" (original) or "leaky_relu" (slope 0.2).
        spectral_norm: constrain every layer's spectral norm to 1.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (8, 16, 32, 64),
        activation: str = "relu",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ("relu", "leaky_relu"):
            raise ValueError(f"activation must be 'relu' or 'leaky_relu', got {activation!r}")
        if not channels or min(channels) < 1:
            raise ValueError(f"channels must be one or more positive widths, got {channels!r}")
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *channels), channels, strict=False):
            layers += [
                _conv(inputs, outputs, stride=2),
                nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.2),
            ]
        layers.append(_conv(channels[-1], 1))
        self.layers = nn.Sequential(*layers)
        _initialize(self, nn.init.xavier_uniform_)
        if spectral_norm:
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] to one score per image (N,) and the heat map (N, 1, h, w)."""
        heat_map = self.layers(image - 0.5)
        return heat_map.mean(dim=(1, 2, 3)), heat_map
