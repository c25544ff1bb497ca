"""fastgan: fused losses, regularizers and optimizer updates for GAN and image-to-image training."""

__version__ = "0.1.0"
