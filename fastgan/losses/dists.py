"""DISTS, the perceptual distance of structure and texture: the dists-pytorch package's values, fused."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fastgan._extras import how_to_install
from fastgan.losses._backbones import (
    Weights,
    check_comparable,
    check_fits_network,
    check_weights,
    load_features,
    random_network,
    with_batch_and_colour,
)
from fastgan.losses._frozen import L2Pooling
from fastgan.losses._frozen_metric import FrozenMetric, ImageFeatures, as_backbone_dtype, graph_if_wanted
from fastgan.losses._lpips_layers import NETWORKS, sliced
from fastgan.losses.perceptual import IMAGENET_MEAN, IMAGENET_STD
from fastgan.ops import feature_moments
from fastgan.ops._checks import (
    as_factor,
    as_flag,
    as_list,
    as_seed,
    check_floating,
    check_image,
    check_one_of,
    check_same_device,
    described,
)
from fastgan.ops._value_range import BY_VALUE_RANGE, Range, RangeCheck, as_range

# The image itself and the outputs of VGG16's stages.
CHANNELS = (3, *NETWORKS["vgg"].channels)
# In the quotients of means and of variances, as in the package.
EPS = 1e-6


def dists_head(
    features_x: Sequence[Tensor], features_y: Sequence[Tensor], alpha: Tensor, beta: Tensor
) -> Tensor:
    r"""The distance of feature maps in texture (means) and structure (variances), for each sample.

    .. math::
        \sum_c \frac{\alpha_c}{w}
        \Big( 1 - \frac{2 \mu_x \mu_y + \epsilon}{\mu_x^2 + \mu_y^2 + \epsilon} \Big)
        + \sum_c \frac{\beta_c}{w}
        \Big( 1 - \frac{2 \sigma_{xy} + \epsilon}{\sigma_x^2 + \sigma_y^2 + \epsilon} \Big)

    over the channels c of all maps, with w the sum of all weights. Of equal maps it is zero exactly.

    Args:
        features_x, features_y: as many maps N C ..., the pairs of equal shapes, all of N samples.
        alpha, beta: weights of the channels of all maps, one after the other; any shape.

    Returns:
        (N,), float32, or float64 for float64. Gradients of every order are exact.

    Raises:
        TypeError, ValueError: maps as for :func:`fastgan.ops.feature_moments`, other numbers of maps, or of
            weights than there are channels, several devices.

    Source: Ding et al., "Image quality assessment: unifying structure and texture similarity", 2020, eq. 8.
    """
    maps_x, maps_y = as_list("features_x", features_x), as_list("features_y", features_y)
    if not maps_x or len(maps_x) != len(maps_y):
        raise ValueError(
            "features_x and features_y must be as many maps, at least one, got "
            f"{len(maps_x)} and {len(maps_y)}"
        )
    moments = [feature_moments(x, y) for x, y in zip(maps_x, maps_y, strict=True)]  # type: ignore[arg-type]
    check_floating("alpha", alpha)
    check_floating("beta", beta)
    channels = sum(each.mean_x.shape[1] for each in moments)
    for name, weights in (("alpha", alpha), ("beta", beta)):
        if weights.numel() != channels:
            raise ValueError(
                f"{name} must have a number for each of {channels} channels, got {tuple(weights.shape)}"
            )
        check_same_device(**{"features_x[0]": moments[0].mean_x, name: weights})
    mean_x, mean_y, variance_x, variance_y, covariance = (
        torch.cat(of_maps, dim=1) for of_maps in zip(*moments, strict=True)
    )
    alpha, beta = alpha.flatten(), beta.flatten()
    # 1 minus each quotient, which does not lose the digits of a small distance.
    texture = (mean_x - mean_y).square() / (mean_x.square() + mean_y.square() + EPS)
    structure = (variance_x + variance_y - 2 * covariance) / (variance_x + variance_y + EPS)
    return (alpha * texture + beta * structure).sum(dim=1) / (alpha.sum() + beta.sum())


class DISTS(FrozenMetric):
    """The distance of Ding et al. with the values, weights and state_dict of the dists-pytorch package.

    Features are those of VGG16 with L2 pooling, and the image itself. Means, variances and covariances of a
    layer are one sweep (:func:`fastgan.ops.feature_moments`). The second image's features are computed
    without a graph unless it requires grad, and :meth:`precompute` keeps them. Where a gradient is needed,
    the backbone's layers are computed without calling their modules, to save memory, so hooks on these do not
    fire. It stays in evaluation mode, and neither its backbone nor alpha and beta get a gradient.

    Args:
        load_weights: whether to load the package's alpha and beta; False: random ones, drawn as there.
        model_path: another file of alpha and beta.
        weights: "default": torchvision's ImageNet weights of VGG16 from torch hub's cache, or else from
            BasicSR's folder ``experiments/pretrained_models``; a path: a file of such a state_dict; None:
            random ones.
        download: whether torch hub fetches default weights that are in neither place.
        seed: of random weights.
        value_range: of the images, (0, 1) or (-1, 1). Some of the first images are checked, with a warning,
            once, if their range does not fit.
        reduction: "none": (N,); "mean" or "sum": 0-d.
        channels_last: whether the backbone runs in that memory format, which is often faster.
        autocast: the backbone's dtype: torch.float32, bfloat16 or float16; None: that of the surrounding
            torch.autocast.

    Raises:
        FileNotFoundError: the backbone's weights are in neither place.
        ModuleNotFoundError: torchvision is missing, or the dists-pytorch package if its weights are needed.
        ValueError: an unknown range or reduction; a file of weights with a wrong hash.
        TypeError: arguments of another kind.

    Gradients of every order are exact. Works under ``torch.compile(fullgraph=True)``.

    Source: Ding et al., "Image quality assessment: unifying structure and texture similarity", 2020.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        load_weights: bool = True,
        *,
        model_path: str | Path | None = None,
        weights: Weights = "default",
        download: bool = False,
        seed: int = 0,
        value_range: Range = (0, 1),
        reduction: Literal["none", "mean", "sum"] = "none",
        autocast: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        load_weights, seed = as_flag("load_weights", load_weights), as_seed("seed", seed)
        check_one_of("reduction", reduction, ("none", "mean", "sum"))
        check_weights("weights", weights)
        self.value_range = as_range(value_range, ((0, 1), (-1, 1)))
        self.reduction, self.autocast = reduction, as_backbone_dtype(autocast)
        self.channels_last = as_flag("channels_last", channels_last)
        network = NETWORKS["vgg"]
        features = load_features(network.torchvision, "DISTS", weights, download, seed)
        # Each stage but the first begins with a pooling.
        for place, channels in zip(network.slices, network.channels[:-1], strict=False):
            features[place] = L2Pooling(channels)
        for number, stage in enumerate(sliced(features, network.slices), 1):
            self.add_module(f"stage{number}", stage.to(memory_format=self.memory_format))
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        of_channels = random_network(_random_weights, seed)
        if load_weights:
            of_channels = _load_weights(model_path)
        self.alpha, self.beta = (nn.Parameter(each) for each in of_channels)
        self.requires_grad_(False).eval().to(torch.get_default_device())
        self._range_check = RangeCheck(type(self).__name__, BY_VALUE_RANGE)

    @torch.no_grad()
    def precompute(self, image: Tensor) -> ImageFeatures:
        """The features of images, which can be passed as `y`.

        Args:
            image: as `x` of :meth:`forward`.
        """
        image = self._checked("image", image)
        self._range_check.look(self.value_range, image)
        return ImageFeatures(tuple(self._features(image)), image.shape)

    def forward(self, x: Tensor, y: Tensor | ImageFeatures) -> Tensor:
        """The distance of images, 0 for equal ones.

        Args:
            x: N 3 H W or 3 H W, or grey with one channel; floating point, in `value_range`.
            y: as x, or the features of such images; a single image on either side is compared with all N on
                the other.

        Returns:
            (N,), or 0-d with a reduction.

        Raises:
            TypeError, ValueError: arguments that are not such images, or of unequal shapes.
        """
        x = self._checked("x", x)
        if isinstance(y, ImageFeatures):
            shape, features_y = y.shape, y.layers
        else:
            y = self._checked("y", y)
            self._range_check.look(self.value_range, x, y)
            shape = y.shape
            with graph_if_wanted(y):
                features_y = tuple(self._features(y))
        check_comparable(x=x.shape, y=shape)
        features_x = tuple(self._features(x))
        if x.shape[0] != shape[0]:
            pairs = [torch.broadcast_tensors(a, b) for a, b in zip(features_x, features_y, strict=True)]
            features_x, features_y = zip(*pairs, strict=True)
        distance = dists_head(features_x, features_y, self.alpha, self.beta)
        if self.reduction == "none":
            return distance
        return distance.mean() if self.reduction == "mean" else distance.sum()

    def _checked(self, name: str, image: Tensor) -> Tensor:
        """The image with a batch dimension and three channels, checked."""
        image = with_batch_and_colour(name, image)
        check_image(name, image)
        check_fits_network(name, image, self.mean)
        return image

    def _features(self, image: Tensor) -> Iterator[Tensor]:
        """The image in [0, 1], and the output of each stage."""
        if self.value_range == (-1, 1):
            image = (image + 1) / 2
        yield image
        stages = [getattr(self, f"stage{number}") for number in range(1, len(CHANNELS))]
        yield from self._run((image - self.mean) / self.std, stages)


class DISTSLoss(DISTS):
    """:class:`DISTS` as a loss: its mean over the batch, times a weight.

    Args:
        loss_weight: the factor.
        options: arguments of :class:`DISTS` other than `reduction`.
    """

    def __init__(self, loss_weight: float = 1.0, **options: object) -> None:
        super().__init__(reduction="mean", **options)  # type: ignore[arg-type]
        self.loss_weight = as_factor("loss_weight", loss_weight)

    def forward(self, x: Tensor, y: Tensor | ImageFeatures) -> Tensor:
        """The weighted mean distance, 0-d; arguments and errors are those of :meth:`DISTS.forward`."""
        return self.loss_weight * super().forward(x, y)


def _random_weights() -> tuple[Tensor, Tensor]:
    """Alpha and beta as the package draws them without a file."""
    alpha, beta = (torch.empty(1, sum(CHANNELS), 1, 1).normal_(0.1, 0.01) for _ in range(2))
    return alpha, beta


def _load_weights(model_path: str | Path | None) -> tuple[Tensor, Tensor]:
    """Alpha and beta that the dists-pytorch package ships, or those of another file.

    Raises:
        ModuleNotFoundError: the package is not installed.
        FileNotFoundError: there is no such file.
        TypeError: model_path is not a path.
        ValueError: a file without alpha and beta of these channels.
    """
    if model_path is not None and not isinstance(model_path, (str, os.PathLike)):
        raise TypeError(f"model_path must be the path of a file, or None, got {described(model_path)}")
    if model_path is None:
        package = importlib.util.find_spec("DISTS_pytorch")  # does not import it and torchvision
        if package is None or package.origin is None:
            raise ModuleNotFoundError(
                "DISTS takes the weights of its channels from the dists-pytorch package, which is not "
                f"installed: {how_to_install('dists')}, or dists-pytorch alone; or pass a file of them as "
                "model_path, or load_weights=False for random ones",
                name="DISTS_pytorch",
            )
        model_path = Path(package.origin).parent / "weights.pt"
    elif not os.path.isfile(model_path):
        raise FileNotFoundError(f"model_path must be a file of alpha and beta, got {model_path!r}")
    state = torch.load(model_path, map_location="cpu", weights_only=True)
    shape = (1, sum(CHANNELS), 1, 1)
    for name in ("alpha", "beta"):
        if (
            not isinstance(state, dict)
            or not isinstance(state.get(name), Tensor)
            or state[name].shape != shape
        ):
            raise ValueError(
                f"{model_path} must have tensors alpha and beta of shape {shape}, and has not {name}"
            )
    return state["alpha"].detach(), state["beta"].detach()
