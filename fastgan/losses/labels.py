"""Cross entropies of logits with constant, one-hot and bit labels, by the names that trainers use.

All are float32 (float64 for float64 logits), also under autocast; gradients have the logits' dtype. With
``from_probabilities=True`` they take the outputs of a network that ends in a sigmoid, as `torch.nn.BCELoss`
does. Where the first logits all lie in [0, 1], as behind a sigmoid, a RuntimeWarning says so once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn import functional as F

from fastgan.losses._probabilities import ProbabilityCheck, cross_entropy_of_probabilities
from fastgan.ops._checks import (
    as_flag,
    as_whole_number,
    check_alike,
    check_floating,
    check_real,
    check_same_device,
    check_tensor,
    described,
    is_among,
    may_look_at,
    shown,
)
from fastgan.reference.precision import wide

# What the functions have seen.
_ADV_LOSS = ProbabilityCheck("adv_loss", of_function=True)
_BCE_SECRET_LOSS = ProbabilityCheck("bce_secret_loss", of_function=True)


def adv_loss(logits: Tensor, target: int, *, from_probabilities: bool = False) -> Tensor:
    """Mean binary cross entropy of the logits with one constant target, 0-d; StarGAN v2's name.

    Args:
        logits: of any shape.
        target: 1 (real) or 0 (fake).
        from_probabilities: the discriminator ends in a sigmoid.

    Raises:
        TypeError: logits that are no floating-point tensor.
        ValueError: target is neither 1 (real) nor 0 (fake).
    """
    if not is_among(target, (0, 1)):
        raise ValueError(f"target must be 1 (real) or 0 (fake), got {shown(target)}")
    check_floating("logits", logits)
    return cross_entropy("logits", logits, int(target), from_probabilities, _ADV_LOSS)


def bce_secret_loss(logits: Tensor, bits: Tensor, *, from_probabilities: bool = False) -> Tensor:
    """Mean binary cross entropy of a decoder's logits with the secret's bits, 0-d; StegaStamp's.

    Args:
        logits: (N, bits).
        bits: 0 and 1, the same shape.
        from_probabilities: the decoder ends in a sigmoid.

    Raises:
        TypeError: logits that are no floating-point tensor, or bits that are no tensor.
        ValueError: the shapes differ.
    """
    check_floating("logits", logits)
    check_real("bits", bits)
    check_alike("logits", logits, "bits", bits)
    return cross_entropy("logits", logits, bits, from_probabilities, _BCE_SECRET_LOSS)


class BinaryLoss(nn.Module):
    """Mean binary cross entropy of logits with ones (``real=True``) or zeros; zi2zi's name.

    Args:
        real: the target.
        from_probabilities: the discriminator ends in a sigmoid.
    """

    def __init__(self, real: bool, *, from_probabilities: bool = False) -> None:
        super().__init__()
        self.real = as_flag("real", real)
        self.from_probabilities = as_flag("from_probabilities", from_probabilities)
        self._check = ProbabilityCheck(type(self).__name__)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits of any shape to 0-d."""
        check_floating("logits", logits)
        return cross_entropy("logits", logits, int(self.real), self.from_probabilities, self._check)


class CategoryLoss(nn.Module):
    """Mean binary cross entropy of category logits with one-hot labels; zi2zi's name.

    The one-hot table is computed, not stored: in zi2zi it is an embedding's weight, which an optimizer over
    all parameters trains away.

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
            TypeError: logits that are no floating-point tensor, or labels that are no tensor of integers.
            ValueError: logits of another width, another number of labels, or, where looking does not wait for
                a device, a label out of range.
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


def cross_entropy(
    name: str, logits: Tensor, target: int | float | Tensor, from_probabilities: bool, check: ProbabilityCheck
) -> Tensor:
    """Mean binary cross entropy of logits, or of probabilities, with a constant or one target each, 0-d."""
    if as_flag("from_probabilities", from_probabilities):
        return cross_entropy_of_probabilities(name, logits, target)
    if not is_compiling() and check.undecided:
        check.look(logits)
    logits = wide(logits)
    if isinstance(target, int):
        return F.softplus(-logits if target else logits).mean()
    if isinstance(target, float):
        target = torch.full_like(logits, target)
    if target.dtype != logits.dtype:  # asked here: to() takes a microsecond to find out
        target = target.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target)
