"""Drop-in losses and regularizers for GAN and image-to-image training."""

from fastgan.losses.yuv_color_l2 import YUVColorL2, yuv_color_l2

__all__ = ["YUVColorL2", "yuv_color_l2"]
