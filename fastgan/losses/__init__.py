"""Drop-in losses and regularizers for GAN and image-to-image training.

Some names of other libraries are importable from here, too; they are defined in :mod:`fastgan.compat`.
"""

from typing import TYPE_CHECKING

from fastgan.losses._borrowed import borrowed
from fastgan.losses._input_gradient import check_supports_penalty
from fastgan.losses.adversarial import AdversarialLoss, AdversarialStatistics, SideStatistics
from fastgan.losses.adversarial_functions import (
    d_bce_loss,
    d_hinge_loss,
    d_lsgan_loss,
    d_nonsaturating_loss,
    d_relativistic_loss,
    d_wgan_loss,
    g_adversarial_loss,
    g_bce_loss,
    g_hinge_loss,
    g_lsgan_loss,
    g_nonsaturating_loss,
    g_relativistic_loss,
    g_wgan_loss,
)
from fastgan.losses.dists import DISTS, DISTSLoss, dists_head
from fastgan.losses.feature_matching import feature_matching_loss
from fastgan.losses.focal_frequency import FocalFrequencyLoss, focal_frequency_loss
from fastgan.losses.jpeg import DiffJPEG, RandomJPEG
from fastgan.losses.labels import bce_secret_loss
from fastgan.losses.lazy_r1 import R1, PenaltyTerm
from fastgan.losses.lpips import LPIPS, ImageFeatures, LPIPSLoss, lpips_weights_path
from fastgan.losses.ms_ssim import MSSSIMLoss, ms_ssim, ms_ssim_loss
from fastgan.losses.path_length import (
    PathLength,
    PathLengths,
    PathLengthTerm,
    path_length_penalty,
    path_length_penalty_of,
)
from fastgan.losses.penalties import (
    approximate_r1,
    gradient_penalty,
    r1_penalty,
    r1_penalty_of,
    r2_penalty,
)
from fastgan.losses.perceptual import PerceptualLoss, VGGFeatures, gram_matrix, layer_index
from fastgan.losses.pixel_loss import PixelLoss, pixel_loss, total_variation_loss
from fastgan.losses.ssim import SSIMLoss, ssim, ssim_l1_loss, ssim_loss
from fastgan.losses.translation import (
    cycle_consistency_loss,
    diversity_sensitive_loss,
    identity_loss,
    style_reconstruction_loss,
)
from fastgan.losses.yuv_color_l2 import YUVColorL2, yuv_color_l2

if TYPE_CHECKING:
    from fastgan.compat._labels import BinaryLoss as BinaryLoss
    from fastgan.compat._labels import CategoryLoss as CategoryLoss
    from fastgan.compat.diff_jpeg import diff_jpeg_coding as diff_jpeg_coding
    from fastgan.compat.kornia import jpeg_codec_differentiable as jpeg_codec_differentiable
    from fastgan.compat.starganv2 import adv_loss as adv_loss
else:
    __getattr__ = borrowed(__name__)

__all__ = [
    "DISTS",
    "LPIPS",
    "R1",
    "AdversarialLoss",
    "AdversarialStatistics",
    "DISTSLoss",
    "DiffJPEG",
    "FocalFrequencyLoss",
    "ImageFeatures",
    "LPIPSLoss",
    "MSSSIMLoss",
    "PathLength",
    "PathLengthTerm",
    "PathLengths",
    "PenaltyTerm",
    "PerceptualLoss",
    "PixelLoss",
    "RandomJPEG",
    "SSIMLoss",
    "SideStatistics",
    "VGGFeatures",
    "YUVColorL2",
    "approximate_r1",
    "bce_secret_loss",
    "check_supports_penalty",
    "cycle_consistency_loss",
    "d_bce_loss",
    "d_hinge_loss",
    "d_lsgan_loss",
    "d_nonsaturating_loss",
    "d_relativistic_loss",
    "d_wgan_loss",
    "dists_head",
    "diversity_sensitive_loss",
    "feature_matching_loss",
    "focal_frequency_loss",
    "g_adversarial_loss",
    "g_bce_loss",
    "g_hinge_loss",
    "g_lsgan_loss",
    "g_nonsaturating_loss",
    "g_relativistic_loss",
    "g_wgan_loss",
    "gradient_penalty",
    "gram_matrix",
    "identity_loss",
    "layer_index",
    "lpips_weights_path",
    "ms_ssim",
    "ms_ssim_loss",
    "path_length_penalty",
    "path_length_penalty_of",
    "pixel_loss",
    "r1_penalty",
    "r1_penalty_of",
    "r2_penalty",
    "ssim",
    "ssim_l1_loss",
    "ssim_loss",
    "style_reconstruction_loss",
    "total_variation_loss",
    "yuv_color_l2",
]
