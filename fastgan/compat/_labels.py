"""zi2zi's losses of labels, also importable from `fastgan.losses`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses._scales import Logits, check_reduction, side_cross_entropy
from fastgan.losses.adversarial import Reduction
from fastgan.losses.labels import cross_entropy
from fastgan.ops._checks import (
    as_flag,
    as_whole_number,
    check_floating,
    check_same_device,
    check_tensor,
    described,
    may_look_at,
)


class BinaryLoss(nn.Module):
    """Mean binary cross entropy of logits with ones (``real=True``) or zeros; zi2zi's name.

    Args:
        real: the target.
        from_probabilities: the discriminator ends in a sigmoid.
        reduction: of a tensor's losses: "mean", "sum" or "none"; see :class:`fastgan.losses.AdversarialLoss`.
    """

    def __init__(
        self, real: bool, *, from_probabilities: bool = False, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.real = as_flag("real", real)
        self.from_probabilities = as_flag("from_probabilities", from_probabilities)
        self._check = ProbabilityCheck(type(self).__name__)

    def forward(self, logits: Logits) -> Any:
        """Logits of any shape, or a list of one tensor for each scale, whose means are added, to 0-d."""
        return side_cross_entropy(
            "logits", logits, float(self.real), self.from_probabilities, self._check, reduction=self.reduction
        )


class CategoryLoss(nn.Module):
    """Mean binary cross entropy of category logits with one-hot labels; zi2zi's name.

    The one-hot table is computed, not stored: in zi2zi it is an embedding's weight, which an optimizer of all
    parameters would train.

    Args:
        category_num: number of categories.
        from_probabilities: the classifier ends in a sigmoid.
    """

    def __init__(self, category_num: int, *, from_probabilities: bool = False) -> None:
        super().__init__()
        self.category_num = as_whole_number("category_num", category_num)
        self.from_probabilities = as_flag("from_probabilities", from_probabilities)
        self._check = ProbabilityCheck(type(self).__name__)

    def forward(self, category_logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, categories) and labels (N,), int64 in [0, categories), to 0-d.

        Raises:
            TypeError: logits that are not a floating-point tensor, or labels that are not a tensor of
                integers.
            ValueError: logits of another width, another number of labels, or, if labels can be read without
                synchronization, a label out of range.
        """
        check_floating("category_logits", category_logits)
        check_tensor("labels", labels)
        if labels.dtype.is_floating_point or labels.dtype.is_complex:
            raise TypeError(f"labels must be integers, got {described(labels)}")
        if category_logits.dim() != 2 or category_logits.shape[1] != self.category_num:
            raise ValueError(
                f"category_logits must have shape (N, {self.category_num}), "
                f"got {tuple(category_logits.shape)} with category_num {self.category_num}"
            )
        if labels.shape != category_logits.shape[:1]:
            raise ValueError(
                f"labels must have shape ({category_logits.shape[0]},), got {tuple(labels.shape)}"
            )
        check_same_device(category_logits=category_logits, labels=labels)
        if may_look_at(labels) and labels.numel():
            low, high = (int(bound) for bound in labels.aminmax())
            if low < 0 or high >= self.category_num:
                raise ValueError(f"labels must lie in [0, {self.category_num}), got {min(low, 0) or high}")
        categories = torch.arange(self.category_num, device=labels.device)
        target = labels[:, None] == categories
        return cross_entropy("category_logits", category_logits, target, self.from_probabilities, self._check)
