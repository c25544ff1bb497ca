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
from fastgan.ops._checks import check_floating, may_look_at
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
    if target not in (0, 1):
        raise ValueError(f"target must be 1 (real) or 0 (fake), got {target!r}")
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
    if not isinstance(bits, Tensor):
        raise TypeError(f"bits must be a tensor, got {type(bits).__name__}")
    if logits.shape != bits.shape:
        raise ValueError(
            f"logits and bits must have the same shape, got {tuple(logits.shape)} and {tuple(bits.shape)}"
        )
    return cross_entropy("logits", logits, bits, from_probabilities, _BCE_SECRET_LOSS)


class BinaryLoss(nn.Module):
    """Mean binary cross entropy of logits with ones (``real=True``) or zeros; zi2zi's name.

    Args:
        real: the target.
        from_probabilities: the discriminator ends in a sigmoid.
    """

    def __init__(self, real: bool, *, from_probabilities: bool = False) -> None:
        super().__init__()
        self.real, self.from_probabilities = bool(real), from_probabilities
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
        if category_num < 1:
            raise ValueError(f"category_num must be at least 1, got {category_num}")
        self.category_num, self.from_probabilities = category_num, from_probabilities
        self._check = ProbabilityCheck(type(self).__name__)

    def forward(self, category_logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, categories) and labels (N,), int64 in [0, categories), to 0-d.

        Raises:
            TypeError: logits that are no floating-point tensor, or labels that are no tensor.
            ValueError: logits of another width, another number of labels, or, where looking does not wait for
                a device, a label out of range.
        """
        check_floating("category_logits", category_logits)
        if not isinstance(labels, Tensor):
            raise TypeError(f"labels must be a tensor, got {type(labels).__name__}")
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
        target = labels[:, None] == categories
        return cross_entropy("category_logits", category_logits, target, self.from_probabilities, self._check)


def cross_entropy(
    name: str, logits: Tensor, target: int | float | Tensor, from_probabilities: bool, check: ProbabilityCheck
) -> Tensor:
    """Mean binary cross entropy of logits, or of probabilities, with a constant or one target each, 0-d."""
    if from_probabilities:
        return cross_entropy_of_probabilities(name, logits, target)
    if not is_compiling() and check.undecided:
        check.look(logits)
    logits = wide(logits)
    if isinstance(target, int):
        return F.softplus(-logits if target else logits).mean()
    if isinstance(target, float):
        target = torch.full_like(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
