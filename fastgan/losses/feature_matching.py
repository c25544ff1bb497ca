"""Feature matching: fake images are to have a discriminator's features of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastgan.ops._checks import as_finite, as_flag, check_floating, described
from fastgan.ops.feature_matching import feature_matching
from fastgan.reference.precision import wide


def feature_matching_loss(
    fake_features: Sequence[Any],
    real_features: Sequence[Any],
    lambda_feat: float = 10.0,
    *,
    layer_weights: float | Sequence[float] | None = None,
    with_logits: bool = True,
    of_means: bool = False,
) -> Tensor:
    r"""The mean absolute difference of features, weighed and added over layers and scales; 0-d.

    .. math::
        \lambda \, \frac{1}{S} \sum_{s=1}^{S} \sum_l w_l \operatorname{mean} |f_{sl} - r_{sl}|

    Args:
        fake_features, real_features: of a discriminator, whose last are its logits: a list of tensors or, of
            several scales, a list of such lists. The pairs have equal shapes. The real ones are constants.
        lambda_feat: the factor; 10 in pix2pixHD and SPADE.
        layer_weights: w: one number for all layers, or one for each. None: 4 divided by the number of a
            scale's features, as in pix2pixHD (there 4 / (n_layers_D + 1)); 1.0 as in SPADE.
        with_logits: whether the last tensor of each scale are logits, which are left out.
        of_means: compare the means over the batch, as in StudioGAN and in the loss's first form.

    Returns:
        0-d, float32, or float64 for float64. The gradient is exact, and that of the gradient zero. All
        layers are one sweep (:mod:`fastgan.ops.feature_matching`).

    Raises:
        TypeError: features that are no lists of floating-point tensors, or both tensors and lists.
        ValueError: lists of different lengths, unequal shapes, nothing to compare but logits, or another
            number of weights than of layers.

    Sources: Salimans et al., "Improved techniques for training GANs", 2016 (of means); Wang et al.,
    "High-resolution image synthesis and semantic manipulation with conditional GANs" (pix2pixHD), 2018.
    """
    return matched(
        fake_features, real_features, lambda_feat, layer_weights, with_logits=with_logits, of_means=of_means
    )


def matched(
    fake_features: Any,
    real_features: Any,
    lambda_feat: float,
    layer_weights: Any,
    *,
    with_logits: bool = True,
    of_means: bool = False,
    names: tuple[str, str] = ("fake_features", "real_features"),
) -> Tensor:
    """:func:`feature_matching_loss`, whose errors call the features by `names`."""
    lambda_feat = as_finite("lambda_feat", lambda_feat)
    with_logits, of_means = as_flag("with_logits", with_logits), as_flag("of_means", of_means)
    fakes = _scales(names[0], fake_features)
    reals = _scales(names[1], real_features)
    if [len(scale) for scale in fakes] != [len(scale) for scale in reals]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have as many scales and layers, got "
            f"{[len(scale) for scale in fakes]} and {[len(scale) for scale in reals]} tensors"
        )
    fake: list[Tensor] = []
    real: list[Tensor] = []
    weights: list[float] = []
    places: list[str] = []
    for number, (fake_scale, real_scale) in enumerate(zip(fakes, reals, strict=True)):
        layers = len(fake_scale) - with_logits
        if layers == 0:
            what = f"scale {number} of {names[0]}" if len(fakes) > 1 else names[0]
            raise ValueError(f"{what} has nothing but logits to compare; with_logits=False takes them, too")
        fake += fake_scale[:layers]
        real += real_scale[:layers]
        of_layers = _layer_weights(layer_weights, layers)
        weights += [lambda_feat * weight / len(fakes) for weight in of_layers]
        scale = f"[{number}]" if isinstance(fake_features[0], (list, tuple)) else ""
        places += [f"{scale}[{layer}]" for layer in range(layers)]

    def named(side: str, i: int) -> str:
        return f"{names[side == 'real']}{places[i]}"

    if of_means:
        fake = [_mean(named("fake", i), each) for i, each in enumerate(fake)]
        real = [_mean(named("real", i), each) for i, each in enumerate(real)]
    return feature_matching(fake, real, weights, named=named)


def _scales(name: str, features: object) -> list[list[Tensor]]:
    """The features of each scale."""
    wanted = "a list of a discriminator's features, or of one such list for each scale"
    if not isinstance(features, (list, tuple)):
        raise TypeError(f"{name} must be {wanted}, got {described(features)}")
    if not features:
        raise ValueError(f"{name} must be {wanted}, got an empty {type(features).__name__}")
    nested = [isinstance(item, (list, tuple)) for item in features]
    if any(nested) and not all(nested):
        raise TypeError(f"{name} must be {wanted}, got both tensors and lists")
    scales = [[*scale] for scale in features] if nested[0] else [[*features]]
    for i, scale in enumerate(scales):
        if not scale:
            raise ValueError(f"{name}[{i}] must have features, got an empty list")
        for j, each in enumerate(scale):
            if not isinstance(each, Tensor):
                check_floating(f"{name}[{i}][{j}]" if nested[0] else f"{name}[{j}]", each)
    return scales


def _layer_weights(weights: object, layers: int) -> list[float]:
    if weights is None:
        return [4 / layers] * layers
    if not isinstance(weights, (list, tuple)):
        return [as_finite("layer_weights", weights, f"a number, or {layers}, one for each layer")] * layers
    if len(weights) != layers:
        raise ValueError(
            f"layer_weights must be a number, or {layers}, one for each layer, got {described(weights)}"
        )
    return [as_finite(f"layer_weights[{i}]", weight) for i, weight in enumerate(weights)]


def _mean(name: str, features: Tensor) -> Tensor:
    """Over the batch, in float32 at least."""
    check_floating(name, features)
    if features.dim() == 0 or features.numel() == 0:
        raise ValueError(f"{name} must have samples, shape (N, ...), got {tuple(features.shape)}")
    return wide(features).mean(dim=0)
