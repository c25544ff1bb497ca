"""LPIPS, the learned perceptual distance of images: the lpips package's values in less time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.losses._backbones import (
    Weights,
    check_comparable,
    check_fits_network,
    check_large_enough,
    check_weights,
    load_features,
    random_network,
    weights_path,
    with_batch_and_colour,
)
from fastgan.losses._frozen_metric import FrozenMetric, ImageFeatures, as_backbone_dtype, graph_if_wanted
from fastgan.losses._lpips_layers import (
    NETWORKS,
    NetLinLayer,
    ScalingLayer,
    Slices,
    load_calibration,
    rename_keys,
)
from fastgan.ops import lpips_head
from fastgan.ops._checks import as_factor, as_flag, as_seed, check_one_of, described
from fastgan.ops._value_range import BY_VALUE_RANGE, Range, RangeCheck, as_range
from fastgan.reference.feature_distance import feature_distance_map

_BY_NORMALIZE: dict[Range, str] = {
    (0, 1): "normalize=True or value_range=(0, 1)",
    (-1, 1): "normalize=False or value_range=(-1, 1)",
}


def lpips_weights_path(net: str = "alex") -> Path:
    """The first place where the backbone's weights are looked for: a file in torch hub's cache.

    Raises:
        ValueError: an unknown net.
    """
    check_one_of("net", net, NETWORKS)
    return weights_path(NETWORKS[net].torchvision)


class LPIPS(FrozenMetric):
    """lpips.LPIPS with the same arguments, submodules, state_dict and values, frozen and fused.

    Each layer's distance is :func:`fastgan.ops.lpips_head`. The second image's features are computed without
    a graph unless it requires grad, and :meth:`precompute` keeps them. For backward the backbone keeps one
    byte per activation: where a gradient is needed, its layers are computed without calling their modules, so
    hooks on these do not fire. It stays in evaluation mode, and its weights get no gradient.

    Args:
        pretrained: whether to load the lpips package's calibration of the layers' weights.
        net: "alex", "vgg" (or "vgg16") or "squeeze".
        version: "0.1"; "0.0" is the first version, whose input is not scaled.
        lpips: False: every layer's distance has weights of one.
        spatial: whether to return a map of distances (N, 1, H, W), in plain PyTorch.
        pnet_rand: the same as ``weights=None``.
        pnet_tune, eval_mode: must be False and True.
        use_dropout: whether the layers' state_dict uses the names of layers with dropout; nothing is dropped.
        model_path: another file of calibration.
        verbose: accepted; nothing is printed.
        weights: "default": torchvision's ImageNet weights from torch hub's cache, or else from BasicSR's
            folder ``experiments/pretrained_models``; a path: a file of such a state_dict; None: random ones.
        download: whether torch hub fetches default weights that are in neither place.
        seed: of the random backbone; earlier versions drew other weights from it.
        value_range: of the images, (-1, 1) or (0, 1). None: (-1, 1), or (0, 1) with ``normalize=True``, as in
            lpips. Some of the first images are checked, with a warning, once, if their range does not fit.
        reduction: "none": (N, 1, 1, 1), as lpips; "mean" or "sum": 0-d.
        channels_last: whether the backbone runs in that memory format, which is often faster. Its
            convolutions then round differently from the package's; where that flips a ReLU, a pixel's
            gradient changes.
        autocast: the backbone's dtype: torch.float32, bfloat16 or float16; None: that of the surrounding
            torch.autocast.

    Raises:
        FileNotFoundError: the backbone's weights are in neither place.
        ModuleNotFoundError: torchvision is missing, or the lpips package if its calibration is needed.
        ValueError: an unknown net, version, range or reduction; a file of weights with a wrong hash.
        TypeError: net passed as the first argument; weights of another kind.

    Checkpoints of LPIPS by taming-transformers, LDM and torchmetrics load strictly, alone and as part of a
    module. The first two load this one's state_dict without ``lins.``, the second names of the layers.

    Gradients are exact to first order; ``fastgan.use("reference")`` has every order. Works under
    ``torch.compile(fullgraph=True)``.

    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018.
    """

    def __init__(
        self,
        pretrained: bool = True,
        net: str = "alex",
        version: str = "0.1",
        lpips: bool = True,
        spatial: bool = False,
        pnet_rand: bool = False,
        pnet_tune: bool = False,
        use_dropout: bool = True,
        model_path: str | Path | None = None,
        eval_mode: bool = True,
        verbose: bool = False,
        *,
        weights: Weights = "default",
        download: bool = False,
        seed: int = 0,
        value_range: Range | None = None,
        reduction: Literal["none", "mean", "sum"] = "none",
        autocast: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(pretrained, bool):
            advice = f"; a network is net={pretrained!r}" if isinstance(pretrained, str) else ""
            raise TypeError(f"pretrained must be True or False, got {described(pretrained)}{advice}")
        lpips, spatial = as_flag("lpips", lpips), as_flag("spatial", spatial)
        pnet_rand, use_dropout = as_flag("pnet_rand", pnet_rand), as_flag("use_dropout", use_dropout)
        if as_flag("pnet_tune", pnet_tune) or not as_flag("eval_mode", eval_mode):
            raise ValueError(
                "pnet_tune and eval_mode must be False and True, got "
                f"{pnet_tune} and {eval_mode}: they train the metric itself, which is frozen here; use "
                "lpips.LPIPS, which takes this one's state_dict"
            )
        channels_last, seed = as_flag("channels_last", channels_last), as_seed("seed", seed)
        net = "vgg" if isinstance(net, str) and net == "vgg16" else net
        check_one_of("net", net, NETWORKS)
        check_one_of("version", version, ("0.0", "0.1"))
        check_one_of("reduction", reduction, ("none", "mean", "sum"))
        check_weights("weights", weights)
        value_range = as_range(value_range, (None, (-1, 1), (0, 1)))
        self.pnet_type, self.version, self.lpips, self.spatial = net, version, lpips, spatial
        self.value_range, self.reduction, self.autocast = value_range, reduction, as_backbone_dtype(autocast)
        self.channels_last = channels_last
        network = NETWORKS[net]
        self._smallest = network.smallest
        features = load_features(network.torchvision, "LPIPS", None if pnet_rand else weights, download, seed)
        self.scaling_layer = ScalingLayer()
        self.net = Slices(features, network.slices).to(memory_format=self.memory_format)
        if lpips:
            layers = random_network(
                lambda: [NetLinLayer(channels, use_dropout) for channels in network.channels], seed
            )
            for number, layer in enumerate(layers):
                self.add_module(f"lin{number}", layer)
            self.lins = nn.ModuleList(layers)
            if pretrained:
                self.load_state_dict(load_calibration(net, version, model_path), strict=False)
        self.requires_grad_(False).eval().to(torch.get_default_device())
        self._range_check = RangeCheck(
            type(self).__name__, _BY_NORMALIZE if value_range is None else BY_VALUE_RANGE
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *options: Any) -> None:
        layers = list(self.lins) if self.lpips else []
        rename_keys(state_dict, prefix, self.scaling_layer, layers)  # type: ignore[arg-type]
        super()._load_from_state_dict(state_dict, prefix, *options)

    @torch.no_grad()
    def precompute(self, image: Tensor, normalize: bool = False) -> ImageFeatures:
        """The features of images, which can be passed as `in1`.

        Args:
            image, normalize: as `in1` and `normalize` of :meth:`forward`.
        """
        image, normalize = self._checked("image", image), as_flag("normalize", normalize)
        self._range_check.look(self._range(normalize), image)
        return ImageFeatures(tuple(self._features(image, normalize)), image.shape)

    def forward(
        self, in0: Tensor, in1: Tensor | ImageFeatures, retPerLayer: bool = False, normalize: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """The distance of images.

        Args:
            in0: N 3 H W or 3 H W, or grey with one channel; floating point, in [-1, 1] or `value_range`.
            in1: as in0, or the features of such images; a single image on either side is compared with all N
                on the other.
            retPerLayer: whether to return (distance, distances of the layers).
            normalize: whether the images are in [0, 1].

        Returns:
            (N, 1, 1, 1), or 0-d with a reduction; (N, 1, H, W) with ``spatial``.

        Raises:
            TypeError, ValueError: arguments that are not such images, too small for the network, or of
                unequal shapes.
        """
        retPerLayer, normalize = as_flag("retPerLayer", retPerLayer), as_flag("normalize", normalize)
        in0 = self._checked("in0", in0)
        if isinstance(in1, ImageFeatures):
            shape, target = in1.shape, iter(in1.layers)
        else:
            in1 = self._checked("in1", in1)
            self._range_check.look(self._range(normalize), in0, in1)
            shape = in1.shape
            with graph_if_wanted(in1):
                target = iter(tuple(self._features(in1, normalize)))
        check_comparable(in0=in0.shape, in1=shape)
        # Not by zip, which would keep a layer's features alive while the next are computed.
        features = self._features(in0, normalize)
        layers = [
            self._distance(number, next(features), next(target), shape) for number in range(self.net.N_slices)
        ]
        total = torch.stack(layers).sum(dim=0)
        if self.reduction != "none":
            total = total.mean() if self.reduction == "mean" else total.sum()
        return (total, layers) if retPerLayer else total

    def _checked(self, name: str, image: Tensor) -> Tensor:
        """The image with a batch dimension and three channels, checked."""
        image = with_batch_and_colour(name, image)
        check_large_enough(image, name, self._smallest, f"net={self.pnet_type!r}")
        check_fits_network(name, image, self.scaling_layer.shift)
        return image

    def _range(self, normalize: bool) -> Range:
        return self.value_range or ((0, 1) if normalize else (-1, 1))

    def _features(self, image: Tensor, normalize: bool) -> Iterator[Tensor]:
        """The layers' features, one by one, so that each can be freed after its distance."""
        if self._range(normalize) == (0, 1):
            image = 2 * image - 1
        if self.version == "0.1":
            image = self.scaling_layer(image)
        return self._run(image, [getattr(self.net, f"slice{i + 1}") for i in range(self.net.N_slices)])

    def _distance(self, number: int, x: Tensor, y: Tensor, shape: torch.Size) -> Tensor:
        if x.shape[0] != y.shape[0]:
            x, y = torch.broadcast_tensors(x, y)
        weight = x.new_ones(x.shape[1], dtype=torch.float32)
        if self.lpips:
            weight = getattr(self, f"lin{number}").model[-1].weight.flatten()
        if not self.spatial:
            return lpips_head(x, y, weight).view(-1, 1, 1, 1)
        distance_map = feature_distance_map(x, y, weight, normalize=True)[:, None]
        return F.interpolate(distance_map, size=shape[2:], mode="bilinear", align_corners=False)


class LPIPSLoss(LPIPS):
    """:class:`LPIPS` as a loss: its mean over the batch, times a weight, for images in [0, 1].

    Args:
        net: "vgg", which gives the best gradients, "alex" or "squeeze".
        loss_weight: the factor.
        value_range: of the images.
        options: further arguments of :class:`LPIPS` other than `reduction`.
    """

    def __init__(
        self, net: str = "vgg", loss_weight: float = 1.0, value_range: Range = (0, 1), **options: Any
    ) -> None:
        value_range = as_range(value_range, ((-1, 1), (0, 1)))
        super().__init__(net=net, value_range=value_range, reduction="mean", **options)
        self.loss_weight = as_factor("loss_weight", loss_weight)

    def forward(self, in0: Tensor, in1: Tensor | ImageFeatures) -> Tensor:  # type: ignore[override]
        """The weighted mean distance, 0-d; arguments and errors are those of :meth:`LPIPS.forward`."""
        return self.loss_weight * super().forward(in0, in1)  # type: ignore[operator, return-value]
