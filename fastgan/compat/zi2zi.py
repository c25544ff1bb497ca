"""Names and signatures of the PyTorch ports of zi2zi (`model/losses.py`)."""

from __future__ import annotations

import torch
from torch import nn

from fastgan.compat import _labels
from fastgan.compat._labels import BinaryLoss

__all__ = ["BinaryLoss", "CategoryLoss"]


class CategoryLoss(_labels.CategoryLoss):
    """:class:`fastgan.losses.CategoryLoss` that advances torch's generator as much as zi2zi's.

    In zi2zi the one-hot table is an embedding, whose random initial weights are drawn and then replaced.
    """

    def __init__(self, category_num: int, *, from_probabilities: bool = False) -> None:
        super().__init__(category_num, from_probabilities=from_probabilities)
        nn.init.normal_(torch.empty(category_num, category_num))
