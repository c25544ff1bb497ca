"""Pixel losses of two images, in plain PyTorch. See `fastgan.ops.pixel_loss`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.yuv_l2 import RGB_TO_YUV, edge_falloff

KINDS = ("l1", "l2", "charbonnier", "huber")
COLORS = ("rgb", "luma", "yuv")


def in_color(image: Tensor, color: str) -> Tensor:
    """The channels that are compared: N C H W, N 1 H W or N 3 H W."""
    if color == "rgb":
        return image
    red, green, blue = image.unbind(1)
    rows = RGB_TO_YUV[: 1 if color == "luma" else 3]
    # Channel by channel, since autocast and TF32 would round a matrix product.
    return torch.stack([r * red + g * green + b * blue for r, g, b in rows], dim=1)


def penalty(values: Tensor, kind: str, eps: float, delta: float) -> Tensor:
    """Rho of each value."""
    if kind == "l1":
        return values.abs()
    if kind == "l2":
        return values.square()
    if kind == "charbonnier":
        return (values.square() + eps).sqrt()
    size = values.abs()
    # Not a choice between two formulas: the one that is not chosen may be infinite, and makes gradients NaN.
    bounded = size.clamp(max=delta)
    return bounded * (size - bounded / 2)


def sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Vertical and horizontal derivative, per pixel: borders repeat, and the factors' sizes sum to 1."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    down = (padded[:, :, 2:] - padded[:, :, :-2]) / 8
    right = (padded[..., 2:] - padded[..., :-2]) / 8
    return (
        down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:],
        right[:, :, :-2] + 2 * right[:, :, 1:-1] + right[:, :, 2:],
    )


def pixel_loss(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    kind: str,
    *,
    eps: float,
    delta: float,
    color: str,
    yuv_scales: tuple[float, float, float],
    edge_gain: Tensor,
    sobel_weight: float,
    tv_weight: float,
    tv_kind: str,
    reduction: str,
    weighted_mean: bool,
    loss_weight: float,
) -> tuple[Tensor, Tensor]:
    """The loss (0-d, or a map) and the means or sums of its three terms (3,), which a map has not (0,).

    In float32, or float64 if an image is float64. The weight broadcasts to the channels that are compared.
    """
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype if y is not None else None) else torch.float32
    x, y = x.to(dtype), None if y is None else y.to(dtype)
    scales = x.new_tensor(yuv_scales).view(3, 1, 1) if color == "yuv" else None
    if weight is not None:
        channels = {"rgb": x.shape[1], "luma": 1, "yuv": 3}[color]
        weight = weight.to(dtype).expand(x.shape[0], channels, *x.shape[2:])

    def reduced(values: Tensor, kind: str, weight: Tensor | None) -> Tensor:
        """Rho of the values, weighed and summed, or averaged."""
        terms = penalty(values, kind, eps, delta)
        if weight is not None:
            terms = terms * weight
        if scales is not None:
            terms = terms * scales
        if reduction == "none":
            return terms
        if (
            reduction == "sum" or terms.numel() == 0
        ):  # where there are no neighbours, of which the mean is NaN
            return terms.sum()
        # In YUV the weighed sum of the channels' means, as in yuv_color_l2.
        mean = terms.mean() if scales is None else 3 * terms.mean()
        return mean / weight.mean() if weight is not None and weighted_mean else mean

    terms = [x.new_zeros(()) for _ in range(3)]
    if y is not None:
        difference = in_color(x - y, color)
        falloff = edge_falloff(x.shape[2], x.shape[3], dtype=dtype, device=x.device)
        difference = difference * (1 + edge_gain.to(dtype) * falloff)
        terms[0] = reduced(difference, kind, weight)
        if reduction == "none":
            return loss_weight * terms[0], x.new_empty(0)
        if sobel_weight:
            down, right = sobel(difference)
            terms[1] = reduced(down, kind, weight) + reduced(right, kind, weight)
    if tv_weight:
        down = in_color(x[:, :, 1:] - x[:, :, :-1], color)
        right = in_color(x[..., 1:] - x[..., :-1], color)
        weight_down = None if weight is None else weight[:, :, :-1]
        weight_right = None if weight is None else weight[..., :-1]
        terms[2] = reduced(down, tv_kind, weight_down) + reduced(right, tv_kind, weight_right)
    loss = loss_weight * (terms[0] + sobel_weight * terms[1] + tv_weight * terms[2])
    return loss, torch.stack(terms).detach()
