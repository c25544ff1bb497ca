"""Differentiable augmentations and distortions between a generator and a discriminator or decoder."""

from fastgan.augment.diff_augment import DiffAugment
from fastgan.augment.distortions import Distortions, random_blur_kernels
from fastgan.augment.perspective import (
    BORDERS,
    place_encoded,
    random_perspective,
    warp_for_encoder,
)
from fastgan.ops.blur import blur
from fastgan.ops.perspective_warp import perspective_warp
from fastgan.ops.photometric import photometric

__all__ = [
    "BORDERS",
    "DiffAugment",
    "Distortions",
    "blur",
    "perspective_warp",
    "photometric",
    "place_encoded",
    "random_blur_kernels",
    "random_perspective",
    "warp_for_encoder",
]
