"""Optimizers with what GAN updates need around the step, in one launch: clips and a moving average.

Each is a subclass of torch's of the same name with its arguments first, and may stand in its place:
``torch.optim.Adam = fastgan.optim.Adam`` before a trainer that cannot be changed makes its optimizers.
Complex parameters, sparse gradients and ``differentiable=True`` are refused.
"""

from fastgan.optim._step import StepStatistics
from fastgan.optim.adam import Adam, AdamW
from fastgan.optim.ema import EMA, update_ema
from fastgan.optim.rmsprop import RMSprop

__all__ = ["EMA", "Adam", "AdamW", "RMSprop", "StepStatistics", "update_ema"]
