"""What GAN steps do with whole networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Gradients pass through the networks, but none are computed for their weights.

    Weights that were frozen before stay so afterwards.
    """
    trained = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch normalization normalizes as ever, but what passes does not enter its running statistics."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
