"""Cross entropies of logits with labels.

All are float32 (float64 for float64 logits), also under autocast; gradients have the logits' dtype. With
``from_probabilities=True`` they take the outputs of a network that ends in a sigmoid, as `torch.nn.BCELoss`
does. If the first logits all lie in [0, 1], as behind a sigmoid, a RuntimeWarning is issued once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import functional as F

from fastgan.losses._borrowed import borrowed
from fastgan.losses._probabilities import ProbabilityCheck, cross_entropy_of_probabilities
from fastgan.ops._checks import as_flag, check_alike, check_floating, check_real
from fastgan.reference.precision import wide

# Shared by all calls of the function.
_BCE_SECRET_LOSS = ProbabilityCheck("bce_secret_loss", of_function=True)


def bce_secret_loss(logits: Tensor, bits: Tensor, *, from_probabilities: bool = False) -> Tensor:
    """Mean binary cross entropy of a decoder's logits with the secret's bits, 0-d; StegaStamp's loss.

    Args:
        logits: (N, bits).
        bits: 0 and 1, in the logits' shape.
        from_probabilities: the decoder ends in a sigmoid.

    Raises:
        TypeError: logits that are not a floating-point tensor, or bits that are not a tensor.
        ValueError: the shapes differ.
    """
    return secret_cross_entropy(logits, bits, from_probabilities, "bits")


def secret_cross_entropy(logits: Tensor, bits: Tensor, from_probabilities: bool, name: str) -> Tensor:
    """:func:`bce_secret_loss`, whose errors call the bits by `name`."""
    check_floating("logits", logits)
    check_real(name, bits)
    check_alike("logits", logits, name, bits)
    return cross_entropy("logits", logits, bits, from_probabilities, _BCE_SECRET_LOSS)


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
    if target.dtype != logits.dtype:  # saves the microsecond of a to() that changes nothing
        target = target.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target)


__getattr__ = borrowed(__name__)
