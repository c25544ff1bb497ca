"""Measures of a batch's images: their range, their deviation, and how much they differ within the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops._checks import check_floating


@torch.no_grad()
def measures_of_images(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Ranges of real and fake images, and how much fakes differ beside how much real ones do.

    Args:
        real, fake: N C H W, of any range; not the same N.

    Returns:
        0-d tensors: `real_lowest`, `real_highest`, `fake_lowest`, `fake_highest`, `real_deviation` (of all
        values), and, for two images or more, `spread_ratio`: the deviation between images at the same place,
        averaged over places, of fakes over that of reals.

    Raises:
        TypeError, ValueError: tensors that are not floating-point, or are empty.
    """
    measures: dict[str, Tensor] = {}
    spreads = []
    for name, images in (("real", real), ("fake", fake)):
        check_floating(name, images)
        if images.dim() == 0 or images.numel() == 0:
            raise ValueError(f"{name} must hold images, got shape {tuple(images.shape)}")
        images = images.detach().float()
        measures[f"{name}_lowest"], measures[f"{name}_highest"] = images.aminmax()
        if len(images) > 1:
            spreads.append(_spread(images))
    measures["real_deviation"] = real.detach().float().std()
    if len(spreads) == 2:
        measures["spread_ratio"] = spreads[1] / spreads[0].clamp(min=1e-6)
    return measures


@torch.no_grad()
def auc(real_scores: Tensor, fake_scores: Tensor, sign: int = 1) -> Tensor:
    """The probability that a real sample scores above a fake one, ties counted half: 0-d, 0.5 by chance.

    Args:
        real_scores, fake_scores: of any shape (N, ...), a mean over all but N is taken.
        sign: -1 where high scores mean fake.
    """
    real, fake = (
        scores.detach().float().reshape(len(scores), -1).mean(1) for scores in (real_scores, fake_scores)
    )
    return 0.5 + 0.5 * sign * (real[:, None] - fake).sign().mean()


def _spread(images: Tensor) -> Tensor:
    """The mean of `images.std(0)`, which is several times slower on the CPU."""
    flat = images.flatten(1)
    return ((flat - flat.mean(0)).square().sum(0) / (len(flat) - 1)).sqrt().mean()
