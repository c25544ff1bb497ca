"""Loss terms of image-to-image translation: mean absolute differences, under StarGAN v2's names.

All are float32 (float64 for float64), also under autocast; gradients have the dtypes of the inputs.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fastgan.ops._checks import as_number, check_alike, check_floating
from fastgan.reference.precision import wide


def style_reconstruction_loss(style: Tensor, style_of_fake: Tensor) -> Tensor:
    """Mean |style_of_fake - style|, so that fakes have the style that they were made with; 0-d.

    Args:
        style, style_of_fake: (N, D), the code given to G, and E's code of its output.

    Raises:
        TypeError, ValueError: arguments that are not floating-point tensors, or different shapes.

    Source: Choi et al., "StarGAN v2: Diverse image synthesis for multiple domains", 2020.
    """
    return _mean_absolute_difference("style", style, "style_of_fake", style_of_fake)


def cycle_consistency_loss(real: Tensor, reconstructed: Tensor) -> Tensor:
    """Mean |reconstructed - real|, for images translated to another domain and back; 0-d, images N C H W.

    Raises:
        TypeError, ValueError: arguments that are not floating-point tensors, or different shapes.

    Source: Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial
    networks", 2017.
    """
    return _mean_absolute_difference("real", real, "reconstructed", reconstructed)


def identity_loss(real: Tensor, translated: Tensor) -> Tensor:
    """Mean |translated - real|, for images translated to their own domain; 0-d.

    Raises:
        TypeError, ValueError: arguments that are not floating-point tensors, or different shapes.

    Source: Taigman, Polyak and Wolf, "Unsupervised cross-domain image generation", 2017; Zhu et al. 2017.
    """
    return _mean_absolute_difference("real", real, "translated", translated)


def diversity_sensitive_loss(fake_1: Tensor, fake_2: Tensor, margin: float | None = None) -> Tensor:
    """Mean |fake_1 - fake_2| of two outputs for one input; to be maximized, so subtract it; 0-d.

    Args:
        fake_1, fake_2: images N C H W from two style codes.
        margin: upper bound of the result, beyond which G gains nothing by more diversity; None: unbounded.

    Raises:
        TypeError, ValueError: arguments that are not floating-point tensors, different shapes, or a margin
            that is not positive.

    Source: Yang et al., "Diversity-sensitive conditional generative adversarial networks", 2019 (with the
    clamp); Choi et al. 2020 (without).
    """
    if margin is not None and not as_number("margin", margin) > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    difference = _mean_absolute_difference("fake_1", fake_1, "fake_2", fake_2)
    return difference if margin is None else difference.clamp(max=float(margin))


def _mean_absolute_difference(first: str, a: Tensor, second: str, b: Tensor) -> Tensor:
    check_floating(first, a)
    check_floating(second, b)
    check_alike(first, a, second, b)
    return F.l1_loss(wide(b), wide(a))
