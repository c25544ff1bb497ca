"""Evaluation metrics: distortion, perception, distributions, bits; by torchmetrics where it has them.

Needs torchmetrics, which the extra `train` installs, and imports it at first use, which takes a second.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fastgan.losses import LPIPS, LPIPSLoss
from fastgan.losses._backbones import MissingWeights, fetch, random_network
from fastgan.ops._checks import (
    as_device,
    as_finite,
    as_flag,
    as_seed,
    as_whole_number,
    check_alike,
    check_image,
    check_one_of,
    check_real,
    check_same_device,
)
from fastgan.ops._value_range import GrossRangeCheck, Range

# At once, rather than when a run evaluates for the first time.
if importlib.util.find_spec("torchmetrics") is None:
    raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")

__all__ = [
    "LPIPS",
    "FrechetDistance",
    "bit_accuracy",
    "luma",
    "nearness",
    "precision_recall",
    "psnr",
    "psnr_y",
    "ssim",
    "ssim_y",
]

SSIM_RADIUS = 5  # of the Gaussian window with sigma 1.5
BY_DATA_RANGE: dict[Range, str] = {
    (0, 255): "8-bit values need data_range=255",
    (0, 1): "images in [0, 1] need data_range=1",
    (-1, 1): "images in [-1, 1] need data_range=2",
}
_PAIR = ("images", "references")
_psnr_range = GrossRangeCheck("psnr", _PAIR, BY_DATA_RANGE)
_ssim_range = GrossRangeCheck("ssim", _PAIR, BY_DATA_RANGE)
_psnr_y_range, _ssim_y_range = GrossRangeCheck("psnr_y", _PAIR), GrossRangeCheck("ssim_y", _PAIR)
_luma_range = GrossRangeCheck("luma", ("images",))
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_ADDRESS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"


def psnr(images: Tensor, references: Tensor, data_range: float = 1.0, *, check_range: bool = True) -> Tensor:
    """The peak signal-to-noise ratio in dB, mean over images, 0-d.

    Args:
        images, references: N C H W.
        data_range: the largest minus the smallest possible value.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1] with a data range of 1, or in [0, 1] with 255. Never
            synchronizes with a GPU.

    Raises:
        TypeError, ValueError: arguments that are not such images, unequal shapes, or a range that is not
            positive.
    """
    _check_pair(images, references)
    data_range = _positive("data_range", data_range)
    if as_flag("check_range", check_range):
        _psnr_range.look((0, data_range), images, references)
    from torchmetrics.functional.image import peak_signal_noise_ratio

    per_image = peak_signal_noise_ratio(
        images, references, data_range=data_range, reduction="none", dim=(1, 2, 3)
    )
    return per_image.mean()


def ssim(images: Tensor, references: Tensor, data_range: float = 1.0, *, check_range: bool = True) -> Tensor:
    """The mean structural similarity, 0-d; Wang et al. 2004. Arguments and errors are those of :func:`psnr`.

    Raises:
        ValueError: fewer than 6x6 pixels, since images are mirrored at the border for windows of 11x11.
    """
    check_image("images", images, channels=None)
    check_image("references", references, channels=None)
    _check_pair(images, references)
    if min(images.shape[2:]) <= SSIM_RADIUS:
        raise ValueError(f"images must have at least 6 x 6 pixels, got shape {tuple(images.shape)}")
    data_range = _positive("data_range", data_range)
    if as_flag("check_range", check_range):
        _ssim_range.look((0, data_range), images, references)
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(images, references, data_range=data_range)  # type: ignore[return-value]


def luma(images: Tensor, border: int = 0, *, check_range: bool = True) -> Tensor:
    """Y of ITU-R BT.601 as by MATLAB's rgb2ycbcr, not rounded: N 3 H W in [0, 1] to N 1 h w in [16, 235].

    Args:
        border: pixels cropped from each side; super-resolution crops `scale` of them.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1]. Never synchronizes with a GPU.

    Raises:
        TypeError, ValueError: the images are no colour images, or the border leaves nothing.
    """
    inner = _luma("images", images, border)
    if as_flag("check_range", check_range):
        _luma_range.look((0, 1), images)
    return inner


def _luma(name: str, images: Tensor, border: int) -> Tensor:
    check_image(name, images)
    border = as_whole_number("border", border, least=0)
    height, width = images.shape[2:]
    if min(height, width) <= 2 * border:
        raise ValueError(
            f"border must leave something of {height}x{width}, got {border} for {name} of shape "
            f"{tuple(images.shape)}"
        )
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=images.dtype, device=images.device)
    inner = images[:, :, border : height - border, border : width - border]
    return (inner * weights.view(3, 1, 1)).sum(1, keepdim=True) + 16


def _check_pair(images: Tensor, references: Tensor) -> None:
    """Checks two batches of images of equal shape, which may be 8-bit."""
    for name, batch in (("images", images), ("references", references)):
        check_real(name, batch)
        if batch.dim() != 4 or batch.numel() == 0:
            raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(batch.shape)}")
    check_alike("images", images, "references", references)


def _positive(name: str, value: float) -> float:
    number = as_finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return number


def psnr_y(images: Tensor, references: Tensor, border: int = 0, *, check_range: bool = True) -> Tensor:
    """:func:`psnr` of the lumas in dB with a data range of 255, the usual measure of super-resolution.

    Args:
        images, references: N 3 H W in [0, 1].
        border, check_range: as those of :func:`luma`.

    Raises:
        TypeError, ValueError: as :func:`luma`; unequal shapes.
    """
    _check_pair(images, references)
    a, b = _luma("images", images, border), _luma("references", references, border)
    if as_flag("check_range", check_range):
        _psnr_y_range.look((0, 1), images, references)
    return psnr(a, b, data_range=255.0, check_range=False)


def ssim_y(images: Tensor, references: Tensor, border: int = 0, *, check_range: bool = True) -> Tensor:
    """The mean structural similarity of the lumas, 0-d, over windows that lie within the image.

    That is the definition of Wang et al. 2004 and of super-resolution; :func:`ssim` also counts windows that
    reach over the border into the mirrored image. Arguments are those of :func:`psnr_y`.

    Raises:
        TypeError, ValueError: as :func:`psnr_y`; the border leaves fewer than 11x11 pixels, a window's size.
    """
    _check_pair(images, references)
    a, b = _luma("images", images, border), _luma("references", references, border)
    if min(a.shape[2:]) < 2 * SSIM_RADIUS + 1:
        raise ValueError(
            f"border must leave at least 11x11 pixels of images, got {a.shape[2]}x{a.shape[3]} for border "
            f"{border} and shape {tuple(images.shape)}"
        )
    if as_flag("check_range", check_range):
        _ssim_y_range.look((0, 1), images, references)
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, similarity_map = structural_similarity_index_measure(a, b, data_range=255.0, return_full_image=True)
    return similarity_map[..., SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS].mean()


def installed_lpips(device: torch.device | str = "cpu", download: bool = False) -> LPIPSLoss | None:
    """LPIPS (AlexNet) of images in [0, 1]; prints a line and returns None where its weights are missing.

    Args:
        download: whether torch hub downloads missing weights, see :class:`fastgan.losses.LPIPS`.
    """
    try:
        return LPIPSLoss("alex", download=download).to(device)
    except MissingWeights as error:
        print(f"LPIPS is left out of the evaluation: {error.needed}")
        return None


def bit_accuracy(logits: Tensor, bits: Tensor) -> Tensor:
    """The share of logits whose sign agrees with the bit, 0-d.

    Args:
        logits, bits: equal shapes; bits are 0 and 1.

    Raises:
        TypeError, ValueError: arguments that are not tensors of real numbers, or unequal shapes.
    """
    check_real("logits", logits)
    check_real("bits", bits)
    check_same_device(logits=logits, bits=bits)
    if logits.shape != bits.shape:
        raise ValueError(
            f"logits and bits must have one shape, got {tuple(logits.shape)}, {tuple(bits.shape)}"
        )
    return ((logits > 0) == (bits > 0.5)).float().mean()


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
