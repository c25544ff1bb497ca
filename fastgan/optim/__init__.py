"""Optimizers whose one launch per step includes clips and a moving average, as GAN training needs them.

Each is a subclass of torch's of the same name, takes its arguments first, and can replace it:
``torch.optim.Adam = fastgan.optim.Adam`` before a trainer that cannot be changed makes its optimizers.
Complex parameters, sparse gradients and ``differentiable=True`` are refused.
"""

from fastgan.optim._step import StepStatistics
from fastgan.optim.adam import Adam, AdamW
from fastgan.optim.ema import EMA, update_ema
from fastgan.optim.rmsprop import RMSprop

__all__ = ["EMA", "Adam", "AdamW", "RMSprop", "StepStatistics", "update_ema"]
