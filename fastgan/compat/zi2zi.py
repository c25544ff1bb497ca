"""Names and signatures of the PyTorch ports of zi2zi (`model/losses.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastgan.compat import _labels
from fastgan.compat._labels import BinaryLoss

__all__ = ["BinaryLoss", "CategoryLoss"]


class CategoryLoss(_labels.CategoryLoss):
    """:class:`fastgan.losses.CategoryLoss` that advances torch's generator as much as zi2zi's.

    In zi2zi the one-hot table is an embedding, whose random initial weights are drawn and then replaced. Its
    `emb.weight` in checkpoints is taken and dropped if it still is that table, and refused if it was trained.
    """

    def __init__(self, category_num: int, *, from_probabilities: bool = False) -> None:
        super().__init__(category_num, from_probabilities=from_probabilities)
        nn.init.normal_(torch.empty(category_num, category_num))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        name = f"{prefix}emb.weight"
        table = state_dict.pop(name, None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if isinstance(table, Tensor) and not torch.equal(table.cpu().float(), torch.eye(self.category_num)):
            *_, errors = arguments
            errors.append(
                f"{name} must be the one-hot table of {self.category_num} categories, got another tensor of "
                f"shape {tuple(table.shape)}: an optimizer has trained it"
            )
