"""Optimizers with what GAN updates need around the step."""

from fastgan.optim.rmsprop import RMSprop

__all__ = ["RMSprop"]
