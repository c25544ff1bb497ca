"""Metrics of sets of images: how far they lie apart, and how much they are like a set of real ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fastgan.losses._backbones import MissingWeights, fetch, random_network
from fastgan.ops._checks import (
    as_device,
    as_flag,
    as_seed,
    as_whole_number,
    check_image,
    check_one_of,
    check_real,
    check_same_device,
)
from fastgan.ops._value_range import GrossRangeCheck

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_ADDRESS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"


def nearness(images: Tensor) -> tuple[Tensor, Tensor]:
    """How far images lie apart: those of a collapsed generator lie close together.

    Args:
        images: N C H W, at least two.

    Returns:
        (mean distance of all pairs, mean distance to the nearest other image), root mean square differences,
        0-d each. The second is 0 if every image has a duplicate, which the first may hide.

    Raises:
        TypeError, ValueError: the images are no tensor of real numbers, or fewer than two.
    """
    check_real("images", images)
    if images.dim() != 4 or images.shape[0] < 2 or images.numel() == 0:
        raise ValueError(f"images must be at least two, N C H W, got shape {tuple(images.shape)}")
    flat = images.flatten(1).float()
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / flat.shape[1] ** 0.5
    count = images.shape[0]
    nearest = (distances + torch.diag(torch.full((count,), torch.inf, device=flat.device))).amin(1)
    return distances.sum() / (count * (count - 1)), nearest.mean()


@torch.no_grad()
def precision_recall(real: Tensor, fake: Tensor, neighbors: int = 5) -> dict[str, Tensor]:
    """Fidelity and diversity of generated samples apart, from the features of both.

    A sample lies within the other kind's manifold if it is closer to one of its samples than that one's
    k-th nearest neighbor of its own kind is.

    Args:
        real, fake: features (N, C) and (M, C) of one extractor, more than `neighbors` each. Inception's or
            another trained network's; a random network's tell less.
        neighbors: k; 5 as in the source of density, 3 in that of precision and recall.

    Returns:
        0-d tensors: `precision`, the part of the fakes within the reals' manifold; `recall`, that of the
        reals within the fakes'; `density`, how many reals' neighborhoods hold a fake, over k, which may
        exceed 1; `coverage`, the part of the reals whose neighborhood holds a fake. 1 is best for all.
        Values compare only with the same counts.

    Raises:
        TypeError, ValueError: features that are not such, or too few for `neighbors`.

    Source: Kynkaanniemi et al., "Improved precision and recall metric for assessing generative models",
    NeurIPS 2019; Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020.
    """
    neighbors = as_whole_number("neighbors", neighbors)
    for name, features in (("real", real), ("fake", fake)):
        check_real(name, features)
        if features.dim() != 2 or len(features) <= neighbors:
            raise ValueError(
                f"{name} must be (N, C) with more than neighbors={neighbors} rows, got shape "
                f"{tuple(features.shape)}"
            )
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real and fake must have one width, got {real.shape[1]}, {fake.shape[1]}")
    check_same_device(real=real, fake=fake)
    real, fake = real.float(), fake.float()
    # Each sample is its own nearest neighbor.
    real_radii, fake_radii = (_distances(x, x).kthvalue(neighbors + 1).values for x in (real, fake))
    between = _distances(real, fake)
    within_real = between < real_radii[:, None]
    return {
        "precision": within_real.any(0).float().mean(),
        "recall": (between < fake_radii).any(1).float().mean(),
        "density": within_real.float().sum(0).mean() / neighbors,
        "coverage": within_real.any(1).float().mean(),
    }


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


class FrechetDistance:
    """The Frechet distance between the features of images and those of real ones, as normal distributions.

    Args:
        weights: "default": Inception's features, as in FID, from torch hub's cache (needs the torch-fidelity
            package); None: a random network's features, for research; their distance is not called FID.
        seed: of the random network.
        device: the device of the images.
        all_processes: whether `compute` joins the images of all processes, which must then all call it.
        keep_features: whether to keep the features of this process's images, as for `precision_recall`.
        check_range: whether to check the first images and to issue a RuntimeWarning, once, for 8-bit values
            or images in [-1, 1]. Never synchronizes with a GPU.
        download: whether torch hub downloads Inception's weights if they are missing.

    Attributes:
        name: "fid", or "frechet_distance_of_random_features".

    Raises:
        FileNotFoundError: Inception's weights are missing; says where to get them and where to put them.
        ModuleNotFoundError: torch-fidelity is not installed.
        OSError: the weights cannot be downloaded.
        TypeError, ValueError: other weights, or an invalid seed, device or flag.

    Source: Heusel et al., "GANs trained by a two time-scale update rule", NeurIPS 2017.
    """

    def __init__(
        self,
        weights: Literal["default"] | None = "default",
        seed: int = 0,
        device: torch.device | str = "cpu",
        all_processes: bool = True,
        *,
        keep_features: bool = False,
        check_range: bool = True,
        download: bool = False,
    ) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance

        check_one_of("weights", weights, ("default", None))
        seed, device = as_seed("seed", seed), as_device("device", device)
        all_processes = as_flag("all_processes", all_processes)
        self.check_range = as_flag("check_range", check_range)
        self._range_check = GrossRangeCheck("FrechetDistance", ("images",))
        self.name = "fid" if weights else "frechet_distance_of_random_features"
        download = as_flag("download", download)
        network = _inception(download) if weights else random_network(_RandomFeatures, seed)
        self._smallest = 1 if weights else _RandomFeatures.smallest
        self._kept: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._keep_features = as_flag("keep_features", keep_features)
        self._metric = FrechetInceptionDistance(
            feature=network.eval(), input_img_size=(3, 299, 299), sync_on_compute=all_processes
        ).to(device)

    def update(self, images: Tensor, real: bool) -> None:
        """Adds images.

        Args:
            images: N 3 H W in [0, 1].
            real: whether they belong to the reference distribution.

        Raises:
            TypeError, ValueError: arguments that are not such images, or on another device.
        """
        check_image("images", images)
        if images.device != self._metric.device:
            raise ValueError(f"images must be on {self._metric.device}, got images on {images.device}")
        if min(images.shape[2:]) < self._smallest:
            raise ValueError(
                f"images must have at least {self._smallest} x {self._smallest} pixels, got "
                f"{images.shape[2]} x {images.shape[3]}"
            )
        real = as_flag("real", real)
        if self.check_range:
            self._range_check.look((0, 1), images)
        with torch.no_grad():
            # torchmetrics passes images on unchanged to a custom network, so convert to 8 bits as FID does.
            pixels = (images.clamp(0, 1) * 255).byte()
            handle = None
            if self._keep_features:
                kept = self._kept[0 if real else 1]
                handle = self._metric.inception.register_forward_hook(lambda _, args, out: kept.append(out))
            try:
                self._metric.update(pixels, real=real)
            finally:
                if handle is not None:
                    handle.remove()

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        """(real, fake): features (N, C) and (M, C) of the images since `reset`; empty unless kept."""
        real, fake = (torch.cat(parts) if parts else torch.empty(0, 0) for parts in self._kept)
        return real, fake

    def reset(self) -> None:
        """Forgets all images."""
        self._metric.reset()
        for parts in self._kept:
            parts.clear()

    def compute(self) -> Tensor:
        """The distance, 0-d; at least two real and two other images must have been added."""
        return self._metric.compute()


class _RandomFeatures(nn.Sequential):
    """8-bit N 3 H W to (N, 128)."""

    num_features = 128
    smallest = 8
    """The smallest height and width that survive the convolutions."""

    def __init__(self) -> None:
        widths = (3, 32, 64, 128)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, 2, 1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)  # type: ignore[arg-type]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.float() / 127.5 - 1)


def _inception(download: bool) -> nn.Module:
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    if not path.exists() and download:
        fetch(INCEPTION_ADDRESS + INCEPTION)
    elif not path.exists():
        raise MissingWeights(
            f"FID needs Inception's weights: download {INCEPTION_ADDRESS}{INCEPTION} and put the file at "
            f"{path}",
            "; or pass download=True, or weights=None for a random network, whose distance is not FID",
        )
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
