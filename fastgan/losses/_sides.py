"""Logits of reals and of fakes, scale by scale: the losses of their pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.losses._scales import check_not_empty, named, side_loss
from fastgan.ops._checks import check_alike, check_floating, check_same_shape
from fastgan.ops.adversarial import discriminator_loss, generator_loss
from fastgan.ops.side_losses import side_losses
from fastgan.reference.precision import wide


def pairs_of(real: list[Tensor], fake: list[Tensor]) -> tuple[list[tuple[str, Tensor]], ...]:
    """Both sides' scales with their names in errors."""
    return named("real_logits", real), named("fake_logits", fake)


def added(real: list[Tensor], fake: list[Tensor], losses: list[Tensor]) -> list[Tensor]:
    """The sums of the reals' losses, which come first, and of the fakes', element by element.

    Raises:
        ValueError: reals and fakes of unequal shapes.
    """
    for (of_real, r), (of_fake, f) in zip(*pairs_of(real, fake), strict=True):
        check_same_shape(**{of_real: r, of_fake: f})
    return [one + other for one, other in zip(losses, losses[len(real) :], strict=False)]


def relativistic_losses(
    real: list[Tensor],
    fake: list[Tensor],
    sign: int,
    reduction: str,
    with_statistics: bool,
    generator: bool = False,
) -> tuple[Any, Tensor | None]:
    """The relativistic game.

    Args:
        real, fake: a tensor for each scale, reals paired with the fakes at the same place.
        sign: 1 if high logits mean real, else -1.
        reduction: "mean", "sum" or "none".
        generator: whether the loss is the generator's.

    Returns:
        The loss, with "none" a list with the losses of each scale, and the statistics (2 scales, 4), the
        reals' before the fakes', or None. The discriminator's mean always has them, a sum and "none" if
        `with_statistics`.

    Raises:
        TypeError, ValueError: pairs that are not floating-point tensors alike.
    """
    losses, statistics = [], []
    for (of_real, r), (of_fake, f) in zip(*pairs_of(real, fake), strict=True):
        for name, each in ((of_real, r), (of_fake, f)):
            check_floating(name, each)
            check_not_empty(name, each)
        check_alike(of_real, r, of_fake, f)
        if reduction == "mean":
            if generator:
                losses.append(generator_loss(f, r, "relativistic", sign=sign))
                continue
            loss, values = discriminator_loss(r, f, "relativistic", sign=sign)
            losses.append(loss)
            statistics.append(values.view(2, 4))
            continue
        # Fakes that score above their reals cost D what a fake logit of the difference would.
        difference = wide(f) - wide(r)
        loss, _ = side_loss(
            "fake_logits", [difference], generator, "cross_entropy", sign=sign, reduction=reduction
        )
        losses.append(loss[0] if reduction == "none" else loss)
        if with_statistics:
            _, counted = side_losses(
                [r.detach()], [f.detach()], "wasserstein", sign=sign, with_statistics=True
            )
            assert counted is not None
            statistics.append(counted)
    counts = torch.stack(statistics, 1).flatten(0, 1) if statistics else None
    return (losses if reduction == "none" else sum(losses[1:], start=losses[0])), counts
