"""The forward method of LPIPS, in the lpips package and in taming-transformers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastgan._torch_internals import has_module_hooks
from fastgan.losses._frozen import run_frozen
from fastgan.ops import lpips_head

SERVES = "in evaluation mode, of images of one shape: one number for each; its calibration gets no gradient"


def lpips_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of `lpips.LPIPS`."""

    def forward(
        self: Any, in0: Tensor, in1: Tensor, retPerLayer: bool = False, normalize: bool = False
    ) -> Any:
        weights = None if self.spatial or retPerLayer else _weights(self)
        if weights is None or not _are_plain(in0, in1):
            return original(self, in0, in1, retPerLayer=retPerLayer, normalize=normalize)
        if normalize:
            in0, in1 = 2 * in0 - 1, 2 * in1 - 1
        if self.version == "0.1":
            in0, in1 = self.scaling_layer(in0), self.scaling_layer(in1)
        return _distance(self.net, weights, in0, in1)

    return forward


def taming_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of taming-transformers' copy."""

    def forward(self: Any, input: Tensor, target: Tensor) -> Any:
        weights = _weights(self)
        if weights is None or not _are_plain(input, target):
            return original(self, input, target)
        return _distance(self.net, weights, self.scaling_layer(input), self.scaling_layer(target))

    return forward


def _are_plain(in0: Tensor, in1: Tensor) -> bool:
    return in0.shape == in1.shape and in0.dtype == in1.dtype and in0.dim() == 4 and in0.numel() > 0


def _weights(metric: Any) -> list[Tensor] | None:
    """Of each layer, (C,), or None while the metric itself is trained."""
    if any(module.training for module in metric.modules()):
        return None
    weights = []
    for number, channels in enumerate(metric.chns):
        if not getattr(metric, "lpips", True):
            weights.append(torch.ones(channels, device=metric.scaling_layer.shift.device))
            continue
        *before, convolution = getattr(metric, f"lin{number}").model
        plain = all(isinstance(module, nn.Dropout) for module in before)
        if not plain or convolution.bias is not None or convolution.weight.numel() != channels:
            return None
        weights.append(convolution.weight.detach().flatten())
    return weights


def _distance(network: nn.Module, weights: list[Tensor], in0: Tensor, in1: Tensor) -> Tensor:
    """(N, 1, 1, 1)"""
    layers = zip(_features(network, in0), _features(network, in1), weights, strict=True)
    distances = [lpips_head(features0, features1, weight) for features0, features1, weight in layers]
    return torch.stack(distances).sum(dim=0)[:, None, None, None]


def _features(network: Any, images: Tensor) -> Any:
    """The layers' features; without keeping activations for backward where the network is frozen."""
    slices = [getattr(network, f"slice{number + 1}") for number in range(getattr(network, "N_slices", 0))]
    is_frozen = not any(parameter.requires_grad for parameter in network.parameters())
    if not slices or not is_frozen or has_module_hooks(network):
        yield from network(images)
        return
    features = [images]
    for layers in slices:
        features.append(run_frozen(layers, features))
        yield features[0]
