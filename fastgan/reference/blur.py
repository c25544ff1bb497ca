"""Blurring every image with a kernel of its own, in plain PyTorch. See `fastgan.ops.blur`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def blur(image: Tensor, kernels: Tensor) -> Tensor:
    """Convolves all channels of image n with kernel n; zeros beyond the border, as TensorFlow's SAME.

    Args:
        image: N C H W.
        kernels: N k k with k odd; applied unflipped, as convolutions in deep learning are.

    Returns:
        N C H W.
    """
    batch, channels, height, width = image.shape
    weights = kernels[:, None].expand(-1, channels, -1, -1).flatten(0, 1)[:, None]
    joined = image.reshape(1, batch * channels, height, width)
    blurred = F.conv2d(joined, weights, padding=kernels.shape[-1] // 2, groups=batch * channels)
    return blurred.view(batch, channels, height, width)


def blur_kernel_gradient(image: Tensor, grad: Tensor, size: int) -> Tensor:
    """The gradient of the kernels, (N, size, size), from the image and the gradient of its blur.

    It is itself a convolution: of the image with the gradient, summed over the channels.
    """
    batch, channels, height, width = image.shape
    joined = image.reshape(1, batch * channels, height, width)
    weights = grad.reshape(batch * channels, 1, height, width)
    moments = F.conv2d(joined, weights, padding=size // 2, groups=batch * channels)
    return moments.view(batch, channels, size, size).sum(dim=1)
