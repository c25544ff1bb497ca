"""LPIPS's layers, named as in the lpips package, and weights of that package and of its derivatives."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgan._extras import how_to_install
from fastgan.ops._checks import described


class Network(NamedTuple):
    """One of lpips's backbones."""

    torchvision: str
    smallest: int
    """The smallest height and width that survive all layers."""
    slices: tuple[int, ...]
    """The ends of the slices in torchvision's `features`."""
    channels: tuple[int, ...]
    """The channels of each slice's output."""


NETWORKS = {
    "alex": Network("alexnet", 31, (2, 5, 8, 10, 12), (64, 192, 384, 256, 256)),
    "vgg": Network("vgg16", 16, (4, 9, 16, 23, 30), (64, 128, 256, 512, 512)),
    "squeeze": Network("squeezenet1_1", 17, (2, 5, 8, 10, 11, 12, 13), (64, 128, 256, 384, 384, 512, 512)),
}


class ScalingLayer(nn.Module):
    """Normalizes images in [-1, 1] with ImageNet's statistics."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale


class Slices(nn.Module):
    """Modules `slice1`, `slice2`, ... of torchvision's layers, which keep their indices as names."""

    def __init__(self, features: nn.Sequential, ends: tuple[int, ...]) -> None:
        super().__init__()
        self.N_slices = len(ends)
        for number, layers in enumerate(sliced(features, ends), 1):
            self.add_module(f"slice{number}", layers)


def sliced(features: nn.Sequential, ends: tuple[int, ...]) -> list[nn.Sequential]:
    """The layers before each end, which keep their indices as names."""
    slices, begin = [], 0
    for end in ends:
        layers = nn.Sequential()
        for index in range(begin, end):
            layers.add_module(str(index), features[index])
        slices.append(layers)
        begin = end
    return slices


class NetLinLayer(nn.Module):
    """A weight for each channel, as a 1x1 convolution."""

    def __init__(self, channels: int, use_dropout: bool) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, 1, 1, bias=False)
        self.model = nn.Sequential(*([nn.Dropout()] if use_dropout else []), convolution)


def load_calibration(net: str, version: str, model_path: str | Path | None) -> dict[str, Tensor]:
    """The layers' weights that the lpips package ships, or those of another file.

    Raises:
        ModuleNotFoundError: the package is not installed.
        FileNotFoundError: there is no such file.
        TypeError: model_path is not a path.
        ValueError: a file that lacks a layer.
    """
    if model_path is not None and not isinstance(model_path, (str, os.PathLike)):
        raise TypeError(f"model_path must be the path of a file, or None, got {described(model_path)}")
    if model_path is None:
        package = importlib.util.find_spec("lpips")  # does not import lpips, which would import scipy
        if package is None or package.origin is None:
            raise ModuleNotFoundError(
                "LPIPS takes the calibration of its layers from the lpips package, which is not installed: "
                f"{how_to_install('train')}, or lpips alone; or pass a file of it as model_path, or "
                "pretrained=False for random weights of the layers, lpips=False for weights of one",
                name="lpips",
            )
        model_path = Path(package.origin).parent / "weights" / f"v{version}" / f"{net}.pth"
    elif not os.path.isfile(model_path):
        raise FileNotFoundError(f"model_path must be a file of calibration, got {model_path!r}")
    state = torch.load(model_path, map_location="cpu", weights_only=True)
    for number in range(len(NETWORKS[net].channels)):
        if not any(f"lin{number}.model.{position}.weight" in state for position in (0, 1)):
            raise ValueError(
                f"{model_path} is no calibration of net={net!r}: it lacks lin{number}.model.1.weight"
            )
    return state


def rename_keys(
    state: MutableMapping[str, Any], prefix: str, scaling: ScalingLayer, layers: list[NetLinLayer]
) -> None:
    """Renames a checkpoint's keys, in place, from those of lpips.LPIPS's derivatives to its own.

    lpips lists each layer twice, as `linN` and `lins.N`; taming-transformers and LDM use only the first name.
    The weight's index depends on whether a dropout comes before it. torchmetrics has both names, but does not
    store the constants of the scaling layer.
    """
    for number, layer in enumerate(layers):
        names = [f"{prefix}{group}{number}.model." for group in ("lin", "lins.")]
        weights = [state.pop(f"{name}{position}.weight", None) for name in names for position in (0, 1)]
        weight = next((tensor for tensor in weights if tensor is not None), None)
        if weight is not None:
            state.update({f"{name}{len(layer.model) - 1}.weight": weight for name in names})
    for name, constant in scaling.state_dict().items():
        state.setdefault(f"{prefix}scaling_layer.{name}", constant)
