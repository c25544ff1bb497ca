"""Names and signatures of traiNNer (victorca25). Its L1 and MSE losses are torch's."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from fastgan.compat._shared import as_images, check_kind
from fastgan.ops._checks import as_finite, check_alike, check_floating, check_instance, check_one_of, shown
from fastgan.ops.pixel_loss import as_eps, pixel_loss


class CharbonnierLoss(nn.Module):
    """Sum of sqrt((x - y)^2 + eps^2), divided by sizes of x; `models.modules.loss.CharbonnierLoss`.

    Args:
        eps: its square is at least float32's smallest normal number; traiNNer takes 0, and then divides 0 by
            0 where images are equal.
        out_norm: letters of what the sum is divided by: b(atch), c(hannels), i(mage), the height times the
            width.

    Losses are float32 (float64 for float64 images).

    Raises:
        TypeError, ValueError: an argument of the wrong kind, or an eps too small.
    """

    def __init__(self, eps: float = 1e-6, out_norm: str = "bci") -> None:
        super().__init__()
        self.eps = as_finite("eps", eps)
        as_eps("the square of eps", self.eps**2)
        self.out_norm = _as_norm(out_norm)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """0-d.

        Args:
            x, y: of one shape, C H W or N C H W or with more dimensions before these.
        """
        check_floating("x", x)
        check_floating("y", y)
        check_alike("x", x, "y", y)
        if x.dim() < 3:
            raise ValueError(f"x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
        loss, _ = pixel_loss(
            as_images(x), as_images(y), kind="charbonnier", eps=self.eps**2, reduction="sum",
            loss_weight=_norm(x, self.out_norm),
        )  # fmt: skip
        return loss


class TVLoss(nn.Module):
    """Total variation, of absolute or squared differences of neighbours; `models.modules.loss.TVLoss`.

    Args:
        tv_type: "tv"; traiNNer's "dtv", with differences along diagonals, is not supported.
        p: 1 or 2, or a name with one of them such as "l1".
        reduction: "mean", of each image, or "sum".
        out_norm: letters of what the loss is divided by, as of :class:`CharbonnierLoss`. With "b" the images'
            losses are added, otherwise averaged.
        beta: the loss is raised to beta / 2.

    Means count the last row and column, whose differences are 0, as in traiNNer.

    Raises:
        NotImplementedError: another tv_type.
        TypeError, ValueError: another argument of the wrong kind or value.
    """

    def __init__(
        self,
        tv_type: Literal["tv"] = "tv",
        p: int | str = 2,
        reduction: Literal["mean", "sum"] = "mean",
        out_norm: str = "b",
        beta: float = 2,
    ) -> None:
        super().__init__()
        self.tv_type: str = tv_type.lower() if isinstance(tv_type, str) else tv_type
        check_kind("Total variation {} is not supported", "tv_type", self.tv_type, ("tv",))
        power: Any = (1 if "1" in p else 2) if isinstance(p, str) else p
        check_one_of("p", power, (1, 2))
        check_one_of("reduction", reduction, ("mean", "sum"))
        self.p, self.reduction, self.out_norm = int(power), reduction, _as_norm(out_norm)
        self.beta = as_finite("beta", beta)

    def forward(self, x: Tensor) -> Tensor:
        """0-d.

        Args:
            x: N C H W, or C H W.
        """
        check_floating("x", x)
        if x.dim() not in (3, 4):
            raise ValueError(f"x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
        count = 1 if self.reduction == "sum" else x.shape[-3] * x.shape[-2] * x.shape[-1]
        images = x.shape[0] if x.dim() == 4 and "b" not in self.out_norm else 1
        loss, _ = pixel_loss(
            as_images(x), None, tv_weight=1.0, tv_kind=f"l{self.p}", reduction="sum",
            loss_weight=1 / max(1, count * images),
        )  # fmt: skip
        if self.beta != 2:
            loss = loss.pow(self.beta / 2)
        return loss * _norm(x, self.out_norm)


def _as_norm(value: object) -> str:
    check_instance("out_norm", value, str, "a string")
    assert isinstance(value, str)
    if not set(value) <= set("bci"):
        raise ValueError(f"out_norm must be made of b, c and i, got {shown(value)}")
    return value


def _norm(x: Tensor, letters: str) -> float:
    """One divided by the sizes that the letters name."""
    # Products one by one: torch.compile does not trace math.prod.
    product = 1
    for letter, size in (("b", x.shape[0]), ("c", x.shape[-3]), ("i", x.shape[-1] * x.shape[-2])):
        if letter in letters:
            product *= size
    return 1 / max(1, product)
