"""Entries of fastgan.augment."""

from __future__ import annotations

import torch

from fastgan import augment
from tests.catalogue.entry import constructor, entry, method
from tests.catalogue.inputs import generator, images, matrices

constructor("augment.DiffAugment", dict, lambda made: made(images(), made.draw(2, generator())))
method("augment.DiffAugment.draw", lambda: {"count": 2, "generator": generator()}, augment.DiffAugment)
method(
    "augment.DiffAugment.__call__",
    lambda: {"image": images(), "drawn": torch.rand(2, 7)},
    augment.DiffAugment,
)
constructor("augment.Distortions", dict, lambda chain: chain(images(), 500, generator()))
method(
    "augment.Distortions.__call__",
    lambda: {"image": images(), "step": 500, "generator": generator()},
    augment.Distortions,
)
entry("augment.random_blur_kernels", lambda: {"batch": 2, "generator": generator()})
entry(
    "augment.random_perspective",
    lambda: {"batch": 2, "height": 16, "width": 16, "displacement": 2.0, "generator": generator()},
)
entry("augment.warp_for_encoder", lambda: {"image": images(), "warp": matrices()})
entry(
    "augment.place_encoded",
    lambda: {
        "image": images(),
        "input_warped": images(),
        "residual_warped": images(),
        "unwarp": matrices(),
        "borders": "random",
        "generator": generator(),
    },
)
