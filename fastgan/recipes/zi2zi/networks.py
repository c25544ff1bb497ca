"""zi2zi's generator and discriminator: one character, drawn in the style of another font.

Yuchen Tian, "zi2zi: Master Chinese Calligraphy with Conditional Adversarial Networks", 2017, after pix2pix
(Isola et al. 2017), AC-GAN (Odena et al. 2017) and DTN (Taigman et al. 2017). Differences from the
published `model/unet.py`:

* Kernels are 4x4, as in pix2pix and the PyTorch ports (published: 5x5).
* Any image size that is divisible by two often enough, see :func:`halvings`.
* The bottleneck is not normalized: at 1x1, instance normalization would erase it, as would batch
  normalization of a single image.
* The embedding of the categories is trained and starts at standard deviation 1 (published: fixed, 0.01).
* The discriminator returns a logit for each patch, as in pix2pix, and the category's logits from the spatial
  mean of its features (published: both from dense layers on all features).
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fastgan.ops import bias_leaky_relu
from fastgan.ops._checks import check_one_of
from fastgan.training.batch_norm import BatchNorm2d

NORMS = ("batch", "instance")
LARGEST_FACTOR = 8  # of the width: 512 in the original
DROPOUT_LAYERS = 3  # of the decoder, from the bottleneck on
FEWEST_HALVINGS = 3
ATTENTION_AFTER = 3  # halvings: at 32x32 of 256x256


def halvings(image_size: int, downs: int = 0) -> int:
    """How often the encoder halves images.

    Args:
        image_size: height and width.
        downs: the requested number; 0: as many as possible, such as 8 for 256 (down to 1x1) and 7 for 384
            (down to 3x3).

    Raises:
        ValueError: fewer than 3 are requested or possible, or the size is not divisible by two so often.
    """
    largest = (image_size & -image_size).bit_length() - 1 if image_size > 0 else 0
    count = downs or largest
    if not FEWEST_HALVINGS <= count <= largest:
        raise ValueError(
            f"image_size {image_size} can be halved {largest} times, and {FEWEST_HALVINGS} to {largest} are "
            f"possible here, got downs {downs}"
            if largest >= FEWEST_HALVINGS
            else f"image_size must be a multiple of {2**FEWEST_HALVINGS}, got {image_size}"
        )
    return count


class Zi2ZiGenerator(nn.Module):
    """A U-Net whose bottleneck is concatenated with the category's embedding.

    Args:
        image_size: height and width.
        channels: of the images.
        category_num: how many categories (fonts) there are.
        width: channels after the first halving (original: 64); doubled at each, up to 8 times.
        embedding_dim: length of a category's embedding (original: 128).
        downs: see :func:`halvings`.
        norm: "batch" (original) or "instance".
        dropout: of the first three layers of the decoder (original: 0.5).
        self_attention: after the third halving (Zhang et al., "Self-Attention GANs", ICML 2019).

    Raises:
        ValueError: another norm, or a size that :func:`halvings` refuses.
    """

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 1,
        category_num: int = 40,
        width: int = 64,
        embedding_dim: int = 128,
        downs: int = 0,
        norm: str = "batch",
        dropout: float = 0.5,
        self_attention: bool = False,
    ) -> None:
        super().__init__()
        check_one_of("norm", norm, NORMS)
        count = halvings(image_size, downs)
        widths = [width * min(2**i, LARGEST_FACTOR) for i in range(count)]
        last = count - 1
        self.encoder = nn.ModuleList(
            _Down(narrow, wide, norm if 0 < i < last else "none", activate=i > 0)
            for i, (narrow, wide) in enumerate(zip([channels, *widths], widths, strict=False))
        )
        # Layer i of the decoder mirrors layer i of the encoder; all but the innermost have a skip connection.
        self.decoder = nn.ModuleList(
            _Up(
                widths[last] + embedding_dim if i == last else 2 * widths[i],
                widths[i - 1] if i else channels,
                norm if i else "none",
                dropout if i and i > last - DROPOUT_LAYERS else 0.0,
            )
            for i in range(count)
        )
        self.attend_to = min(ATTENTION_AFTER, last) - 1 if self_attention else None
        if self.attend_to is not None:
            self.attention = SelfAttention(widths[self.attend_to])
        self.embedding = nn.Embedding(category_num, embedding_dim)
        _initialize(self)

    def encode(self, image: Tensor) -> Tensor:
        """N C H W in [-1, 1] to the bottleneck's features, averaged over space: (N, features)."""
        return self._encode(image)[-1].mean((2, 3))

    def _encode(self, image: Tensor) -> list[Tensor]:
        features = []
        x = image
        for index, layer in enumerate(self.encoder):
            x = layer(x)
            if index == self.attend_to:
                x = self.attention(x)
            features.append(x)
        return features

    @overload
    def forward(self, image: Tensor, category: Tensor, return_feat: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(
        self, image: Tensor, category: Tensor, return_feat: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, image: Tensor, category: Tensor, return_feat: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Maps glyphs of the source font to those of the category's font, N C H W in [-1, 1].

        Args:
            image: N C H W.
            category: (N,), int64; or embeddings (N, embedding_dim), such as interpolated ones.
            return_feat: also return :meth:`encode` of `image`.
        """
        style = category if category.is_floating_point() else self.embedding(category)
        skips = self._encode(image)
        bottleneck = skips[-1]
        x = torch.cat([bottleneck, style[:, :, None, None].expand(-1, -1, *bottleneck.shape[2:])], 1)
        for index in range(len(skips) - 1, -1, -1):
            x = self.decoder[index](x)
            if index:
                x = torch.cat([x, skips[index - 1]], 1)
        fake = torch.tanh(x)
        return (fake, bottleneck.mean((2, 3))) if return_feat else fake


class Zi2ZiDiscriminator(nn.Module):
    """Discriminates pairs: whether the second image is a real drawing of the first in a font, and which font.

    Args:
        channels: of each image.
        category_num: how many categories there are.
        width: channels of the first layer (original: 64); doubled three times.
        norm: "batch" (original) or "instance", on all layers but the first.
        use_spectral_norm: on every layer (Miyato et al., ICLR 2018), in place of `norm`.

    Raises:
        ValueError: another norm.
    """

    def __init__(
        self,
        channels: int = 1,
        category_num: int = 40,
        width: int = 64,
        norm: str = "batch",
        use_spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        check_one_of("norm", norm, NORMS)
        hidden = "none" if use_spectral_norm else norm
        self.layers = nn.Sequential(
            _Down(2 * channels, width, "none", activate=False),
            _Down(width, 2 * width, hidden),
            _Down(2 * width, 4 * width, hidden),
            _Down(4 * width, 8 * width, hidden, stride=1),
        )
        self.binary = nn.Conv2d(8 * width, 1, 3, 1, 1)
        self.category = nn.Linear(8 * width, category_num)
        _initialize(self)
        if use_spectral_norm:
            for layer in list(self.modules()):
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    spectral_norm(layer)

    def forward(self, source: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Two images N C H W in [-1, 1] to a logit for each patch, N 1 h w, and category logits (N, K)."""
        features = bias_leaky_relu(self.layers(torch.cat([source, image], 1)), None, slope=0.2)
        return self.binary(features), self.category(features.mean((2, 3)))


class SelfAttention(nn.Module):
    """Self-attention over space with a residual connection; starts as the identity.

    Args:
        channels: at least 8.

    Source: Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        key, value = max(channels // 8, 1), max(channels // 2, 1)
        self.sizes = [key, key, value]
        self.project = nn.Conv2d(channels, sum(self.sizes), 1, bias=False)
        self.out = nn.Conv2d(value, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """N C H W to N C H W."""
        query, key, value = self.project(x).flatten(2).transpose(1, 2).split(self.sizes, dim=2)
        # With a dimension for the heads, of which there is one: without it, ONNX has no such operation.
        query, key, value = (part[:, None] for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
        return x + self.gamma * self.out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


class _Down(nn.Module):
    """Leaky ReLU, 4x4 convolution, normalization; halves the size with stride 2."""

    def __init__(self, narrow: int, wide: int, norm: str, activate: bool = True, stride: int = 2) -> None:
        super().__init__()
        self.activate = activate
        self.convolution = nn.Conv2d(narrow, wide, 4, stride, 1, bias=norm == "none")
        self.norm = _norm(norm, wide)

    def forward(self, x: Tensor) -> Tensor:
        if self.activate:
            x = bias_leaky_relu(x, None, slope=0.2)
        return self.norm(self.convolution(x))


class _Up(nn.Module):
    """ReLU, 4x4 transposed convolution, normalization, dropout; doubles the size."""

    def __init__(self, inputs: int, outputs: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=norm == "none")
        self.norm = _norm(norm, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.convolution(F.relu(x))))


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True) if kind == "instance" else nn.Identity()


def _initialize(module: nn.Module) -> None:
    """As in pix2pix: normal with standard deviation 0.02."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (BatchNorm2d, nn.InstanceNorm2d)):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
