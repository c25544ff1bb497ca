"""Pixel losses: L1, L2, Charbonnier and Huber in RGB, luma or YUV, with edges and total variation."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from fastgan import ops
from fastgan.ops._checks import as_finite, as_flag, check_one_of, check_tensor
from fastgan.ops._dispatch import requested
from fastgan.reference.pixel_loss import KINDS

Kind = Literal["l1", "l2", "charbonnier", "huber"]
Color = Literal["rgb", "luma", "yuv"]
Reduction = Literal["mean", "sum", "none"]


@overload
def pixel_loss(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None = ...,
    *,
    kind: Kind = ...,
    eps: float = ...,
    delta: float = ...,
    color: Color = ...,
    yuv_scales: tuple[float, float, float] | None = ...,
    edge_gain: float | Tensor = ...,
    sobel_weight: float = ...,
    tv_weight: float = ...,
    tv_kind: Kind = ...,
    reduction: Reduction = ...,
    weighted_mean: bool = ...,
    loss_weight: float = ...,
    return_parts: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def pixel_loss(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None = ...,
    *,
    kind: Kind = ...,
    eps: float = ...,
    delta: float = ...,
    color: Color = ...,
    yuv_scales: tuple[float, float, float] | None = ...,
    edge_gain: float | Tensor = ...,
    sobel_weight: float = ...,
    tv_weight: float = ...,
    tv_kind: Kind = ...,
    reduction: Reduction = ...,
    weighted_mean: bool = ...,
    loss_weight: float = ...,
    return_parts: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def pixel_loss(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    *,
    kind: Kind = "l1",
    eps: float = 1e-12,
    delta: float = 1.0,
    color: Color = "rgb",
    yuv_scales: tuple[float, float, float] | None = None,
    edge_gain: float | Tensor = 0.0,
    sobel_weight: float = 0.0,
    tv_weight: float = 0.0,
    tv_kind: Kind = "l1",
    reduction: Reduction = "mean",
    weighted_mean: bool = False,
    loss_weight: float = 1.0,
    return_parts: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Mean penalty of the difference of two images, and optionally of its edges and of x's roughness.

    With p = M (x - y) (1 + edge_gain f), the loss is

    .. math::
        \text{loss\_weight} \, \bigl( R(p) + \text{sobel\_weight} \, (R(S_h p) + R(S_w p))
        + \text{tv\_weight} \, (R(\Delta_h M x) + R(\Delta_w M x)) \bigr)

    where R is the mean of `weight` times a penalty: \|v\| ("l1"), v^2 ("l2"), sqrt(v^2 + eps)
    ("charbonnier"), or v^2 / 2 up to \|v\| = delta and delta (\|v\| - delta / 2) beyond ("huber"). M takes
    RGB to Y (BT.601: 0.299, 0.587, 0.114) or to YUV, as in :func:`yuv_color_l2`, and f is its falloff, 1 on
    the border and 0 from a quarter of the image on. S are Sobel's derivatives per pixel, ((-1, 0, 1), (-2, 0,
    2), (-1, 0, 1)) / 8, of the difference with its border repeated; Delta are differences of neighbours below
    and on the right.

    Args:
        x: N C H W of any range, in "luma" and "yuv" N 3 H W; float32, bfloat16, float16 or float64; any
            strides.
        y: of the same shape; may have another dtype.
        weight: of each pixel, N C H W, with one channel in "luma"; any size may be 1 and then broadcasts.
            A pair of neighbours has the weight of its first pixel. Not differentiable.
        kind: the penalty; of its derivatives, |v|'s at 0 is 0.
        eps, delta: of the penalties. BasicSR's eps is this one, that of others its square root.
        color: channels in which the difference and the variation are measured. BasicSR's Y channel differs by
            a factor of 219 / 255.
        yuv_scales: factors of Y, U and V, whose means are added; for "yuv".
        edge_gain: extra factor of the difference on the border, as in :func:`yuv_color_l2`; a number or a 0-d
            tensor.
        sobel_weight, tv_weight: of the other two terms; 0 leaves them out.
        tv_kind: the penalty of the variation.
        reduction: "mean", "sum", or "none" for a map N C H W of the difference's penalties, for which x and y
            are read by PyTorch's operations on every device.
        weighted_mean: divide by the mean of `weight`, too, for a mean over the weights.
        loss_weight: factor of the loss.
        return_parts: also return the three terms (difference, Sobel, variation) before their weights, shape
            (3,), detached, for logging.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        The loss, 0-d float32 (float64 if an image is float64), or (loss, parts). Accumulated in float32 or
        wider; the same input gives the same bits for any number of threads.

    Gradients with respect to x and y are exact, and saved by the forward pass: one tensor of x's size, for
    float16 images in float32. Second-order gradients are exact if all penalties are "l2"; others raise,
    except with ``backend="reference"``, which also has a gradient of `weight`.

    Raises:
        TypeError: an image is not a floating-point tensor, or another argument is of the wrong kind.
        ValueError: different or wrong shapes, an empty batch, tensors on different devices, an unknown
            choice, numbers that are not finite, an eps below float32's smallest normal number, a delta that
            is not positive, yuv_scales without color="yuv", weighted_mean without a mean, other terms or
            parts with reduction="none", or a weight that requires grad.
        NotImplementedError: a second-order gradient that the kernels do not have.
        RuntimeError: the requested backend cannot serve the call.

    Source: Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution", CVPR 2017,
    for Charbonnier's penalty; the losses of BasicSR, whose drop-ins are :mod:`fastgan.compat.basicsr`'s.
    """
    if as_flag("return_parts", return_parts) and reduction == "none":
        raise _no_parts()
    check_tensor("y", y)
    loss, parts = ops.pixel_loss(
        x, y, weight, kind=kind, eps=eps, delta=delta, color=color, yuv_scales=yuv_scales,
        edge_gain=edge_gain, sobel_weight=sobel_weight, tv_weight=tv_weight, tv_kind=tv_kind,
        reduction=reduction, weighted_mean=weighted_mean, loss_weight=loss_weight, backend=backend,
    )  # fmt: skip
    return (loss, parts) if return_parts else loss


def _no_parts() -> ValueError:
    return ValueError("return_parts=True is for a mean or a sum, got reduction='none'")


def total_variation_loss(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    kind: Kind = "l1",
    eps: float = 1e-12,
    delta: float = 1.0,
    color: Color = "rgb",
    yuv_scales: tuple[float, float, float] | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    weighted_mean: bool = False,
    loss_weight: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Mean penalty of the differences of vertical neighbours, plus that of horizontal ones.

    :func:`pixel_loss` without a second image. A direction without neighbours, in an image of one row, adds
    nothing. "sum" of "l1" is `tf.image.total_variation`, added over images, and
    `kornia.losses.total_variation`, added over images and channels.

    Args:
        x: N C H W.
        weight: of each pixel: that of a pair is its first one's.
        kind, eps, delta, color, yuv_scales, reduction, weighted_mean, loss_weight, backend: as in
            :func:`pixel_loss`, without "none".

    Returns:
        The loss, 0-d.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: as :func:`pixel_loss`.
    """
    check_one_of("kind", kind, KINDS)
    check_one_of("reduction", reduction, ("mean", "sum"))
    loss, _ = ops.pixel_loss(
        x, None, weight, eps=eps, delta=delta, color=color, yuv_scales=yuv_scales, tv_weight=1.0,
        tv_kind=kind, reduction=reduction, weighted_mean=weighted_mean, loss_weight=loss_weight,
        backend=backend,
    )  # fmt: skip
    return loss


class PixelLoss(nn.Module):
    """:func:`pixel_loss` as a module.

    The edge gain is a 0-d buffer that moves with the module, so that a schedule is
    ``loss.edge_gain.fill_(gain)``: no synchronization, no recompilation. Without one in the constructor there
    is no gain.

    Args:
        edge_gain: initial gain on the border; None: none.
        kind, eps, delta, color, yuv_scales, sobel_weight, tv_weight, tv_kind, reduction, weighted_mean,
            loss_weight, return_parts, backend: as in :func:`pixel_loss`.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: as :func:`pixel_loss`, in the constructor
            and in the call.
    """

    edge_gain: Tensor | None

    def __init__(
        self,
        kind: Kind = "l1",
        *,
        eps: float = 1e-12,
        delta: float = 1.0,
        color: Color = "rgb",
        yuv_scales: tuple[float, float, float] | None = None,
        edge_gain: float | None = None,
        sobel_weight: float = 0.0,
        tv_weight: float = 0.0,
        tv_kind: Kind = "l1",
        reduction: Reduction = "mean",
        weighted_mean: bool = False,
        loss_weight: float = 1.0,
        return_parts: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        requested(backend)
        self.options: dict[str, Any] = {
            "kind": kind, "eps": eps, "delta": delta, "color": color, "yuv_scales": yuv_scales,
            "sobel_weight": sobel_weight, "tv_weight": tv_weight, "tv_kind": tv_kind, "reduction": reduction,
            "weighted_mean": weighted_mean, "loss_weight": loss_weight,
        }  # fmt: skip
        self.return_parts, self.backend = as_flag("return_parts", return_parts), backend
        gain = (
            None
            if edge_gain is None
            else torch.tensor(as_finite("edge_gain", edge_gain), dtype=torch.float32)
        )
        self.register_buffer("edge_gain", gain, persistent=False)
        if self.return_parts and reduction == "none":
            raise _no_parts()
        # Wrong options are named here, not in the first step.
        image = torch.zeros(1, 3, 1, 1, device="cpu")
        ops.pixel_loss(image, image, **self.options, backend="reference")

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        check_tensor("y", y)
        gain = 0.0 if self.edge_gain is None else self.edge_gain
        loss, parts = ops.pixel_loss(x, y, weight, **self.options, edge_gain=gain, backend=self.backend)
        return (loss, parts) if self.return_parts else loss

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
