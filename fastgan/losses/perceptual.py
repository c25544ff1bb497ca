"""Perceptual and style losses on the features of VGG."""

from __future__ import annotations

import numbers
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fastgan.losses._backbones import (
    Weights,
    check_comparable,
    check_fits_network,
    check_large_enough,
    check_weights,
    load_features,
    one_backbone,
    with_batch_and_colour,
)
from fastgan.losses._frozen import run_frozen
from fastgan.ops._checks import (
    as_device,
    as_finite,
    as_whole_number,
    check_floating,
    check_one_of,
    described,
    shown,
)
from fastgan.ops._value_range import BY_VALUE_RANGE, Range, RangeCheck, as_range
from fastgan.ops.feature_distance import feature_distance
from fastgan.reference.precision import without_autocast

# The number of convolutions in each stage, which ends with a pooling.
STAGES = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
NETWORKS = [network + norm for network in STAGES for norm in ("", "_bn")]
CRITERIA = {"l1": 1, "l2": 2}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGFeatures(NamedTuple):
    """The result of :meth:`PerceptualLoss.precompute`, to compare images with."""

    layers: tuple[Tensor, ...]
    shape: torch.Size
    """The images' shape, with three channels."""


class PerceptualLoss(nn.Module):
    r"""The weighted distance of images in the features of a frozen VGG.

    .. math::
        \sum_l w_l \\, \operatorname{mean} |\phi_l(x) - \phi_l(y)|^p
        + \sum_l s_l \\, \operatorname{mean} |G(\phi_l(x)) - G(\phi_l(y))|^p, \qquad
        G(\phi)_{ij} = \frac{1}{C P} \sum_p \phi_{ip} \phi_{jp}

    The network ends at the deepest layer needed; the target's features are computed without a graph, and
    :meth:`precompute` keeps them. Where a gradient is needed, convolutions, ReLUs, poolings and batch
    normalizations are computed without calling their modules, to save memory, so hooks on these do not fire.

    Args:
        layers: torchvision's indices, such as 3, or names, such as "relu1_2", "conv3_1", "bn3_1", "pool4".
        weights: w, one for all or one for each layer; 0 for layers where only style counts. None or a path,
            as in :class:`LPIPS`, is the `backbone`, and w is then 1.
        device: the network's device; None: torch's default device.
        style_weights: s, one for all or one for each layer.
        patch_size: height and width of patches of the features whose Gram matrices are compared, as in
            texture losses; rows and columns beyond the last whole patch are ignored. None: the whole map.
        criterion: "l1" or "l2".
        network: "vgg11", "vgg13", "vgg16" or "vgg19", or with batch normalization "vgg11_bn" and so on.
        value_range: of the images, (-1, 1) or (0, 1). Some of the first images are checked, with a warning,
            once, if their range does not fit. None: images are already normalized with ImageNet's statistics.
        backbone: "default": torchvision's ImageNet weights from torch hub's cache, or else from BasicSR's
            folder ``experiments/pretrained_models``; a path: a file of such a state_dict; None: random ones.
        download: whether torch hub fetches default weights that are in neither place.
        seed: of the random backbone; earlier versions drew other weights from it.

    Raises:
        FileNotFoundError: the backbone's weights are in neither place.
        ModuleNotFoundError: torchvision is not installed.
        ValueError: an unknown layer, network, criterion or range, or a wrong number of weights.
        TypeError: a backbone of the wrong kind.

    Gradients are exact to first order; ``fastgan.use("reference")`` has every order.

    Sources: Johnson, Alahi and Fei-Fei, "Perceptual losses for real-time style transfer and
    super-resolution", ECCV 2016; Gatys, Ecker and Bethge 2015 (style); Sajjadi, Schoelkopf and Hirsch,
    "EnhanceNet", ICCV 2017 (style of patches).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Sequence[int | str] = (3, 8),
        weights: float | Sequence[float] | Weights = 1.0,
        device: torch.device | str | None = None,
        *,
        style_weights: float | Sequence[float] = 0.0,
        patch_size: int | None = None,
        criterion: Literal["l1", "l2"] = "l1",
        network: str = "vgg16",
        value_range: Range | None = (-1, 1),
        backbone: Weights = "default",
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if weights is None or isinstance(weights, (str, os.PathLike)):
            backbone = one_backbone(weights, backbone)
            weights = 1.0
        check_one_of("network", network, NETWORKS)
        check_one_of("criterion", criterion, CRITERIA)
        value_range = as_range(value_range, (None, (-1, 1), (0, 1)))
        check_weights("backbone", backbone)
        if patch_size is not None:
            patch_size = as_whole_number("patch_size", patch_size)
        device = torch.get_default_device() if device is None else as_device("device", device)
        self.network, self.criterion, self.patch_size = network, criterion, patch_size
        self.value_range = value_range
        self.layers = _indices(layers, network)
        self.weights = _one_each("weights", weights, len(self.layers))
        self.style_weights = _one_each("style_weights", style_weights, len(self.layers))
        features = load_features(network, "PerceptualLoss", backbone, download, seed)
        self.features = features[: max(self.layers) + 1]
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # its input may be a layer to compare
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval().to(device)
        self._smallest = 2 ** sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        self._range_check = RangeCheck(type(self).__name__, BY_VALUE_RANGE)

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Keeps evaluation mode, as part of a network in training mode, too."""
        return super().train(False)

    def precompute(self, image: Tensor) -> VGGFeatures:
        """The features of images, which can be passed as `target`."""
        image = self._checked("image", image)
        self._check_range(image)
        return self._target_features(image)

    def forward(self, x: Tensor, target: Tensor | VGGFeatures) -> Tensor:
        """The weighted sum of both parts, 0-d.

        Args:
            x: N 3 H W or, for grey images, N 1 H W, or one image without N; floating point, in `value_range`.
            target: as x, or the features of such images; it gets no gradient. A single image on either side
                is compared with all N on the other.

        Raises:
            TypeError, ValueError: arguments that are not such images, too small for the layers, or of unequal
                shapes.
        """
        perceptual, style = self.parts(x, target)
        return perceptual + style

    def parts(self, x: Tensor, target: Tensor | VGGFeatures) -> tuple[Tensor, Tensor]:
        """(perceptual, style), weighted, both 0-d; arguments and errors are those of :meth:`forward`."""
        x = self._checked("x", x)
        if isinstance(target, VGGFeatures):
            target_features = target
        else:
            target = self._checked("target", target)
            self._check_range(x, target)
            target_features = self._target_features(target)
        check_comparable(x=x.shape, target=target_features.shape)
        perceptual = style = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        power = CRITERIA[self.criterion]
        features = self._run(x)
        for number, (weight, style_weight) in enumerate(zip(self.weights, self.style_weights, strict=True)):
            map_x, map_y = next(features), target_features.layers[number]
            if map_x.shape[0] != map_y.shape[0]:
                map_x, map_y = torch.broadcast_tensors(map_x, map_y)
            if weight:
                perceptual = perceptual + weight * feature_distance(map_x, map_y, power).mean()
            if style_weight:
                difference = gram_matrix(map_x, self.patch_size) - gram_matrix(map_y, self.patch_size)
                powers = difference.abs() if power == 1 else difference.square()
                style = style + style_weight * powers.mean()
            del map_x  # frees its memory before the next layers run
        return perceptual, style

    def feature_maps(self, image: Tensor) -> Iterator[Tensor]:
        """The layers' features of images, differentiable; arguments and errors as in :meth:`forward`."""
        return self._run(self._checked("image", image))

    @torch.no_grad()
    def _target_features(self, image: Tensor) -> VGGFeatures:
        return VGGFeatures(tuple(self._run(image)), image.shape)

    def _check_range(self, *images: Tensor) -> None:
        if self.value_range is not None:
            self._range_check.look(self.value_range, *images)

    def _checked(self, name: str, image: Tensor) -> Tensor:
        """The image with a batch dimension and three channels, checked."""
        image = with_batch_and_colour(name, image)
        check_large_enough(image, name, self._smallest, f"{self.network} up to layer {max(self.layers)}")
        check_fits_network(name, image, self.mean)
        return image

    def _run(self, image: Tensor) -> Iterator[Tensor]:
        if self.value_range == (-1, 1):
            image = (image + 1) / 2
        if self.value_range is not None:
            image = (image - self.mean) / self.std
        features, begin = [image], 0
        del image
        for layer in self.layers:
            features.append(run_frozen(self.features[begin : layer + 1], features))
            begin = layer + 1
            yield features[0]


def layer_index(layer: int | str, network: str) -> int:
    """Torchvision's index of a layer of VGG.

    Raises:
        TypeError: a layer that is neither a name nor a number.
        ValueError: an unknown layer or network; lists the names.
    """
    names = layer_names(network)
    if isinstance(layer, str):
        check_one_of("layer", layer, names)
        return names.index(layer)
    if isinstance(layer, bool) or not isinstance(layer, numbers.Integral):
        raise TypeError(f"layer must be a name or an index, got {described(layer)}")
    if not 0 <= layer < len(names):
        raise ValueError(f"layer must lie in [0, {len(names) - 1}] for {network}, got {layer}")
    return int(layer)


def _indices(layers: object, network: str) -> list[int]:
    """Torchvision's indices of several layers, which must be ordered from the input to the output."""
    given = layers.tolist() if type(layers).__module__ == "numpy" else layers  # type: ignore[attr-defined]
    if not isinstance(given, Collection) or isinstance(given, (str, bytes, Tensor)):
        raise TypeError(f"layers must be names or indices of layers, got {described(layers)}")
    try:
        indices = [layer_index(layer, network) for layer in given]
    except (TypeError, ValueError) as error:
        raise type(error)(f"layers must be layers of {network}, got {described(layers)}: {error}") from error
    if not indices or sorted(set(indices)) != indices:
        raise ValueError(f"layers must be different and from the input to the output, got {shown(layers)}")
    return indices


def layer_names(network: str) -> list[str]:
    """The names of VGG's layers in torchvision's order: conv1_1, (bn1_1,) relu1_1, conv1_2, ..., pool1, ...

    Raises:
        ValueError: an unknown network.
    """
    check_one_of("network", network, NETWORKS)
    kinds = ("conv", "bn", "relu") if network.endswith("_bn") else ("conv", "relu")
    names = []
    for stage, count in enumerate(STAGES[network.removesuffix("_bn")], 1):
        for number in range(1, count + 1):
            names += [f"{kind}{stage}_{number}" for kind in kinds]
        names.append(f"pool{stage}")
    return names


def gram_matrix(features: Tensor, patch_size: int | None = None) -> Tensor:
    """Inner products of channels, over all pixels or those of each patch, divided by channels times pixels.

    Args:
        features: N C H W.
        patch_size: height and width of patches; None: one patch, the whole map.

    Returns:
        (N, C, C), or (N, patches, C, C); in float32 at least.

    Raises:
        TypeError, ValueError: features of another kind, or smaller than a patch.
    """
    check_floating("features", features)
    if features.dim() != 4:
        raise ValueError(f"features must have shape (N, C, H, W), got {tuple(features.shape)}")
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    n, c, h, w = features.shape
    if patch_size is None:
        flat, pixels = features.reshape(n, c, h * w), h * w
    else:
        size = as_whole_number("patch_size", patch_size)
        if min(h, w) < size:
            raise ValueError(
                f"patch_size must not exceed the features' height and width, got {size} for features of "
                f"shape {tuple(features.shape)}, smaller than patches of {size} x {size}"
            )
        rows, columns = h // size, w // size
        whole = features[:, :, : rows * size, : columns * size].reshape(n, c, rows, size, columns, size)
        flat = whole.permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, c, size * size)
        pixels = size * size
    with without_autocast(features):  # autocast would multiply in half precision
        return flat @ flat.mT / (c * pixels)


def _one_each(name: str, weights: object, count: int) -> list[float]:
    wanted = f"one number or {count}, one for each layer"
    items = weights.tolist() if type(weights).__module__ == "numpy" else weights  # type: ignore[attr-defined]
    if isinstance(items, numbers.Real):
        return [as_finite(name, weights, wanted)] * count
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes)):
        raise TypeError(f"{name} must be {wanted}, got {described(weights)}")
    if len(items) != count:
        raise ValueError(f"{name} must be {wanted}, got {described(weights)}")
    try:
        return [as_finite(name, item) for item in items]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be {wanted}, got {described(weights)}: {error}") from error
