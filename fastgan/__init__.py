"""fastgan: fused losses, regularizers and optimizer updates for GAN and image-to-image training."""

from fastgan import losses, ops, optim
from fastgan.ops import use

__version__ = "0.1.0"
__all__ = ["losses", "ops", "optim", "use"]
