"""Entries of fastgan.ops."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgan import ops
from tests.catalogue.entry import entry, method
from tests.catalogue.inputs import images, matrices

# RuntimeError: a backend that cannot serve.
BACKEND = (RuntimeError,)


def _features() -> dict[str, Tensor]:
    return {"features_x": images(5, 4), "features_y": images(5, 4), "weight": torch.rand(5)}


def _use(backend: str) -> None:
    with ops.use(backend):
        ops.squared_norm(images())


entry("ops.use", lambda: {"backend": "reference"}, _use, BACKEND)
entry(
    "ops.bias_act",
    lambda: {"x": images(), "bias": torch.rand(3), "act": "lrelu", "alpha": 0.1, "gain": 1.5, "clamp": 2.0},
    raises=BACKEND,
)
entry("ops.bias_leaky_relu", lambda: {"x": images(), "bias": torch.rand(3), "clamp": 2.0}, raises=BACKEND)
entry("ops.blur", lambda: {"image": images(), "kernels": torch.rand(2, 3, 3)}, raises=BACKEND)
entry("ops.conv2d", lambda: {"x": images(), "weight": torch.rand(4, 3, 3, 3), "bias": torch.rand(4)})
method("ops.Conv2d.forward", lambda: {"input": images()}, lambda: ops.Conv2d(3, 4, 3))
entry("ops.convert_convolutions", lambda: {"network": nn.Sequential(nn.Conv2d(3, 4, 3))})
entry("ops.feature_distance", _features, raises=BACKEND)
entry("ops.feature_moments", lambda: {"features_x": images(5, 4), "features_y": images(5, 4)}, raises=BACKEND)
entry("ops.lpips_head", _features, raises=BACKEND)
entry(
    "ops.gradient_budget",
    lambda: {"gradients": [images(), images(), images()], "weights": torch.rand(3)},
    raises=BACKEND,
)
entry("ops.setup_filter", lambda: {"f": [1.0, 3.0, 3.0, 1.0]})
for _name in ("upfirdn2d", "filter2d", "upsample2d", "downsample2d"):
    entry(f"ops.{_name}", lambda: {"x": images(), "f": torch.rand(4)}, raises=BACKEND)
entry(
    "ops.filtered_lrelu",
    lambda: {"x": images(), "fu": torch.rand(4), "fd": torch.rand(2, 3), "b": torch.rand(3), "clamp": 2.0},
    raises=BACKEND,
)
entry("ops.jpeg_round_trip", lambda: {"image": images(), "quality": 50.0}, raises=BACKEND)
entry("ops.perspective_warp", lambda: {"image": images(), "matrix": matrices()}, raises=BACKEND)
entry("ops.photometric", lambda: {"image": images(), "noise": 0.1, "seed": 3}, raises=BACKEND)
entry(
    "ops.pixel_loss",
    lambda: {"x": images(), "y": images(), "weight": images(1), "kind": "huber", "tv_weight": 0.1},
    raises=BACKEND,
)
entry("ops.squared_norm", lambda: {"x": images()}, raises=BACKEND)
entry("ops.ssim_distance", lambda: {"x": images(), "y": images()}, raises=BACKEND)
entry("ops.yuv_l2", lambda: {"x": images(), "y": images()}, raises=BACKEND)
