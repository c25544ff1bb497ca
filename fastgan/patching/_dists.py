"""The forward method of DISTS, in the dists-pytorch package."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastgan._torch_internals import has_module_hooks
from fastgan.losses._frozen import run_frozen
from fastgan.losses.dists import dists_head

SERVES = "of images of one shape"
STAGES = 5


def dists_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of `DISTS_pytorch.DISTS`."""

    def forward(
        self: Any, x: Tensor, y: Tensor, require_grad: bool = False, batch_average: bool = False
    ) -> Any:
        if x.shape != y.shape or x.dtype != y.dtype or x.dim() != 4 or x.numel() == 0:
            return original(self, x, y, require_grad=require_grad, batch_average=batch_average)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(require_grad)):
            features_x, features_y = [*_features(self, x)], [*_features(self, y)]
        score = dists_head(features_x, features_y, self.alpha, self.beta).squeeze()
        return score.mean() if batch_average else score

    return forward


def _features(metric: Any, images: Tensor) -> Iterator[Tensor]:
    """The images and the stages' features; without keeping activations where the network is frozen."""
    yield images
    features = [(images - metric.mean) / metric.std]
    for number in range(1, STAGES + 1):
        stage: nn.Module = getattr(metric, f"stage{number}")
        is_frozen = not any(parameter.requires_grad for parameter in stage.parameters())
        run = run_frozen if is_frozen and not has_module_hooks(stage) else _called
        features.append(run(stage, features))
        yield features[0]


def _called(layers: nn.Module, inputs: list[Tensor]) -> Tensor:
    output: Tensor = layers(inputs.pop())
    return output
