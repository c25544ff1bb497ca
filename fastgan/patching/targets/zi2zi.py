"""The PyTorch ports of zi2zi"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastgan.compat import zi2zi
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import numbers, with_gradients


def _binary(cls: Any) -> Iterator[Tensor]:
    for real in (True, False):
        yield from with_gradients(cls(real), numbers(6, 1, scale=3))


def _category(cls: Any) -> Iterator[Tensor]:
    loss = cls(5)
    yield from with_gradients(lambda x: loss(x, torch.tensor([0, 3, 4])), numbers(3, 5))


TARGET = Target(
    "zi2zi",
    (
        Replacement("model.losses", "BinaryLoss", zi2zi.BinaryLoss, probe=_binary),
        Replacement("model.losses", "CategoryLoss", zi2zi.CategoryLoss, probe=_category),
    ),
    (Kept("model.model.Zi2ZiModel", "it calls both losses; L1 and MSE are torch's"),),
)
