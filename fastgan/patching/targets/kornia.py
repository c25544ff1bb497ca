"""kornia"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastgan.compat import kornia
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import images, with_gradients


def _codec(function: Any) -> Iterator[Tensor]:
    quality = torch.tensor([30.0, 75.0])
    yield from with_gradients(lambda x: function(x, quality), images(2, 3, 24, 40))


TARGET = Target(
    "kornia",
    (
        Replacement(
            "kornia.enhance.jpeg", "jpeg_codec_differentiable", kornia.jpeg_codec_differentiable, probe=_codec
        ),
    ),
    (
        Kept("kornia.enhance.JPEGCodecDifferentiable", "it calls jpeg_codec_differentiable, which is replaced"),
        Kept("kornia.losses.*", "fastgan has no equal"),
    ),
)
