"""Differentiable distortions between a generator and what must survive them."""

from fastgan.augment.distortions import Distortions, random_blur_kernels
from fastgan.augment.perspective import (
    BORDERS,
    place_encoded,
    random_perspective,
    warp_for_encoder,
)

__all__ = [
    "BORDERS",
    "Distortions",
    "place_encoded",
    "random_blur_kernels",
    "random_perspective",
    "warp_for_encoder",
]
