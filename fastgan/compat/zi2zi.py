"""As in the PyTorch ports of zi2zi (`model/losses.py`)."""

from fastgan.losses.labels import BinaryLoss, CategoryLoss

__all__ = ["BinaryLoss", "CategoryLoss"]
