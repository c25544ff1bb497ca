"""Drop-in losses and regularizers for GAN and image-to-image training."""

from fastgan.losses.adversarial import AdversarialLoss
from fastgan.losses.jpeg import DiffJPEG, RandomJPEG, diff_jpeg_coding, jpeg_codec_differentiable
from fastgan.losses.lpips import LPIPS, lpips_weights_path
from fastgan.losses.penalties import check_supports_penalty, gradient_penalty, r1_penalty
from fastgan.losses.yuv_color_l2 import YUVColorL2, yuv_color_l2

__all__ = [
    "LPIPS",
    "AdversarialLoss",
    "DiffJPEG",
    "RandomJPEG",
    "YUVColorL2",
    "check_supports_penalty",
    "diff_jpeg_coding",
    "gradient_penalty",
    "jpeg_codec_differentiable",
    "lpips_weights_path",
    "r1_penalty",
    "yuv_color_l2",
]
