"""BasicSR's pixel losses, which are cases of one op; importable from :mod:`fastgan.compat.basicsr`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastgan.compat._shared import as_images, broadcast
from fastgan.losses._input_gradient import check_samples
from fastgan.ops._checks import (
    as_finite,
    check_floating,
    check_image,
    check_one_of,
    check_real,
    check_same_device,
    check_same_shape,
)
from fastgan.ops.pixel_loss import REDUCTIONS, as_eps, pixel_loss


class _PixelLoss(nn.Module):
    """What BasicSR's L1Loss, MSELoss and CharbonnierLoss share."""

    _kind: str
    eps: float = 1e-12

    def __init__(self, loss_weight: float = 1.0, reduction: Literal["none", "mean", "sum"] = "mean") -> None:
        super().__init__()
        check_one_of("reduction", reduction, REDUCTIONS)
        self.loss_weight = as_finite("loss_weight", loss_weight)
        self.reduction = reduction

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **kwargs: Any) -> Tensor:
        """0-d, or with "none" a map of pred's shape; float32 (float64 for float64 inputs).

        Args:
            pred, target: of one shape, of any number of dimensions.
            weight: of each element, as many dimensions, which broadcast to theirs; of dimension 1 either all
                or one. The mean is then the sum divided by that of the weights. One that requires grad gets
                its gradient, too, from the reference.
            kwargs: ignored, as in BasicSR.

        Raises:
            TypeError: an argument is not a floating-point tensor.
            ValueError: unequal or empty shapes, or a weight that does not go with them.
        """
        check_floating("pred", pred)
        check_floating("target", target)
        check_same_shape(pred=pred, target=target)
        check_samples("pred", pred)
        loss_weight, backend = self.loss_weight, None
        if weight is not None:
            weight, repeated = _as_weights(weight, pred)
            loss_weight = loss_weight * (repeated if self.reduction == "mean" else 1)
            backend = "reference" if weight.requires_grad and torch.is_grad_enabled() else None
        loss, _ = pixel_loss(
            as_images(pred), as_images(target), None if weight is None else as_images(weight),
            kind=self._kind, eps=self.eps, reduction=self.reduction,
            weighted_mean=weight is not None and self.reduction == "mean", loss_weight=loss_weight,
            backend=backend,
        )  # fmt: skip
        return loss.view(pred.shape) if self.reduction == "none" else loss


def _as_weights(weight: object, pred: Tensor) -> tuple[Tensor, float]:
    """The weight, and how often BasicSR's sum of it counts less than that of its broadcast.

    It counts weights of one channel once for each, but not those of one sample or one row.
    """
    check_real("weight", weight)
    assert isinstance(weight, Tensor)
    check_same_device(pred=pred, weight=weight)
    if pred.dim() < 2:
        raise ValueError(f"with a weight, pred must have two dimensions or more, got {tuple(pred.shape)}")
    fits = weight.dim() == pred.dim() and broadcast(weight.shape, pred.shape) == pred.shape
    if not fits:
        raise ValueError(f"weight must broadcast to {tuple(pred.shape)}, got shape {tuple(weight.shape)}")
    repeated = pred.numel() / weight.numel() * weight.shape[1] / pred.shape[1]
    # Of four dimensions the op broadcasts it itself.
    return weight if pred.dim() == 4 else weight.expand_as(pred), repeated


class L1Loss(_PixelLoss):
    """Mean absolute error; `basicsr.losses.L1Loss`.

    Args:
        loss_weight: factor of the loss.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError, ValueError: an argument of the wrong kind, or an unknown reduction, as in BasicSR.
    """

    _kind = "l1"


class MSELoss(_PixelLoss):
    """Mean squared error; `basicsr.losses.MSELoss`.

    Args: as of :class:`L1Loss`.
    """

    _kind = "l2"


class CharbonnierLoss(_PixelLoss):
    """Mean of sqrt((pred - target)^2 + eps); `basicsr.losses.CharbonnierLoss`.

    Args:
        loss_weight, reduction: as of :class:`L1Loss`.
        eps: at least float32's smallest normal number; BasicSR takes 0, and then divides 0 by 0 where images
            are equal.
    """

    _kind = "charbonnier"

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: Literal["none", "mean", "sum"] = "mean",
        eps: float = 1e-12,
    ) -> None:
        super().__init__(loss_weight=loss_weight, reduction=reduction)
        self.eps = as_eps("eps", eps)


class WeightedTVLoss(L1Loss):
    """Mean absolute differences of neighbours, vertical plus horizontal; `basicsr.losses.WeightedTVLoss`.

    Args:
        loss_weight: factor of the loss.
        reduction: "mean" or "sum".

    Images of one row or column have no neighbours in one direction, which adds nothing; BasicSR's mean is
    NaN.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        check_one_of("reduction", reduction, ("mean", "sum"))
        super().__init__(loss_weight=loss_weight, reduction=reduction)

    def forward(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """0-d.

        Args:
            pred: N C H W.
            weight: N C H W, with one sample or channel for all; that of a pair is its first pixel's. The mean
                is then the sum divided by that of the weights.
        """
        check_image("pred", pred, None)
        loss_weight, backend = self.loss_weight, None
        is_mean = self.reduction == "mean"
        if weight is not None:
            _as_weights(weight, pred)
            loss_weight = loss_weight * (pred.shape[0] / weight.shape[0] if is_mean else 1)
            backend = "reference" if weight.requires_grad and torch.is_grad_enabled() else None
        loss, _ = pixel_loss(
            pred, None, weight, tv_weight=1.0, reduction=self.reduction,
            weighted_mean=weight is not None and is_mean, loss_weight=loss_weight, backend=backend,
        )  # fmt: skip
        return loss
