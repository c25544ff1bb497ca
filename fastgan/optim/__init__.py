"""Optimizers with what GAN updates need around the step, in one launch: clips and a moving average."""

from fastgan.optim._step import StepStatistics
from fastgan.optim.adam import Adam, AdamW
from fastgan.optim.ema import EMA, update_ema
from fastgan.optim.rmsprop import RMSprop

__all__ = ["EMA", "Adam", "AdamW", "RMSprop", "StepStatistics", "update_ema"]
