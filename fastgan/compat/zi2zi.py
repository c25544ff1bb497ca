"""As in the PyTorch ports of zi2zi (`model/losses.py`)."""

from __future__ import annotations

import torch
from torch import nn

from fastgan.compat import _labels
from fastgan.compat._labels import BinaryLoss

__all__ = ["BinaryLoss", "CategoryLoss"]


class CategoryLoss(_labels.CategoryLoss):
    """:class:`fastgan.losses.CategoryLoss`, which leaves the random numbers after it as they are there.

    There the one-hot table is an embedding, whose random weights are drawn before they are replaced.
    """

    def __init__(self, category_num: int, *, from_probabilities: bool = False) -> None:
        super().__init__(category_num, from_probabilities=from_probabilities)
        nn.init.normal_(torch.empty(category_num, category_num))
