"""What distances of images in the features of a frozen network have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fastgan._torch_internals import inside_transform
from fastgan.losses._frozen import run_frozen
from fastgan.ops._checks import check_one_of

Metric = TypeVar("Metric", bound="FrozenMetric")


class ImageFeatures(NamedTuple):
    """A network's features of images, to compare others with: the result of a metric's `precompute`."""

    layers: tuple[Tensor, ...]
    shape: torch.Size
    """The images' shape."""


class FrozenMetric(nn.Module):
    """A distance of images in a network's features, which stays in evaluation mode."""

    autocast: torch.dtype | None
    channels_last: bool

    @property
    def memory_format(self) -> torch.memory_format:
        """The backbone's memory format; a property, since as an attribute it could not be pickled."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def train(self: Metric, mode: bool = True) -> Metric:
        """Keeps evaluation mode, as part of a network in training mode, too."""
        return super().train(False)

    def _run(self, image: Tensor, slices: Iterable[nn.Module]) -> Iterator[Tensor]:
        """The features of each slice, one by one, so that each can be freed after its distance."""
        features = [image.contiguous(memory_format=self.memory_format)]
        precision = self._precision(image)
        del image
        for layers in slices:
            with precision:
                features.append(run_frozen(layers, features))
            yield features[0]

    def _precision(self, image: Tensor) -> AbstractContextManager:
        if self.autocast is None or image.is_meta:  # the meta device has no autocast
            return nullcontext()
        enabled = self.autocast != torch.float32
        return torch.autocast(image.device.type, dtype=self.autocast if enabled else None, enabled=enabled)


def graph_if_wanted(image: Tensor) -> AbstractContextManager:
    """The mode in which the target's features are computed: with a graph if it requires a gradient."""
    # Inside vmap, requires_grad is not that of the batch.
    wants_gradient = image.requires_grad or inside_transform()
    return torch.set_grad_enabled(torch.is_grad_enabled() and wants_gradient)


def as_backbone_dtype(autocast: torch.dtype | None) -> torch.dtype | None:
    """The dtype that a backbone runs in, checked; None: that of the surrounding autocast."""
    check_one_of("autocast", autocast, (None, torch.float32, torch.bfloat16, torch.float16))
    return autocast
