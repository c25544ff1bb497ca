"""Cross entropies of logits with constant, one-hot and bit labels, by the names that trainers use."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.ops._checks import check_floating, may_look_at


def adv_loss(logits: Tensor, target: int) -> Tensor:
    """Mean binary cross entropy of the logits with one constant target, 0-d; StarGAN v2's name.

    Raises:
        ValueError: target is neither 1 (real) nor 0 (fake).
    """
    if target not in (0, 1):
        raise ValueError(f"target must be 1 (real) or 0 (fake), got {target!r}")
    check_floating("logits", logits)
    return F.softplus(-logits if target == 1 else logits).mean()


def bce_secret_loss(logits: Tensor, bits: Tensor) -> Tensor:
    """Mean binary cross entropy of a decoder's logits with the secret's bits, 0-d; StegaStamp's.

    Args:
        logits: (N, bits).
        bits: 0 and 1, the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if logits.shape != bits.shape:
        raise ValueError(
            f"logits and bits must have the same shape, got {tuple(logits.shape)} and {tuple(bits.shape)}"
        )
    return F.binary_cross_entropy_with_logits(logits, bits.to(logits.dtype))


class BinaryLoss(nn.Module):
    """Mean binary cross entropy of logits with ones (``real=True``) or zeros; zi2zi's name."""

    def __init__(self, real: bool) -> None:
        super().__init__()
        self.real = bool(real)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits of any shape to 0-d."""
        return adv_loss(logits, int(self.real))


class CategoryLoss(nn.Module):
    """Mean binary cross entropy of category logits with one-hot labels; zi2zi's name.

    The one-hot table is computed, not stored: in zi2zi it is an embedding's weight, which an optimizer over
    all parameters trains away.

    Args:
        category_num: number of categories.
    """

    def __init__(self, category_num: int) -> None:
        super().__init__()
        if category_num < 1:
            raise ValueError(f"category_num must be at least 1, got {category_num}")
        self.category_num = category_num

    def forward(self, category_logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, categories) and labels (N,), int64 in [0, categories), to 0-d.

        Raises:
            ValueError: logits of another width, another number of labels, or, where looking does not wait for
                a device, a label out of range.
        """
        if category_logits.dim() != 2 or category_logits.shape[1] != self.category_num:
            raise ValueError(
                f"category_logits must have shape (N, {self.category_num}), "
                f"got {tuple(category_logits.shape)}"
            )
        if labels.shape != category_logits.shape[:1]:
            raise ValueError(
                f"labels must have shape ({category_logits.shape[0]},), got {tuple(labels.shape)}"
            )
        if may_look_at(labels) and labels.numel():
            low, high = (int(bound) for bound in labels.aminmax())
            if low < 0 or high >= self.category_num:
                raise ValueError(f"labels must lie in [0, {self.category_num}), got {min(low, 0) or high}")
        categories = torch.arange(self.category_num, device=labels.device)
        target = (labels[:, None] == categories).to(category_logits.dtype)
        return F.binary_cross_entropy_with_logits(category_logits, target)
