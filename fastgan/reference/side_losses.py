"""Adversarial losses of any number of tensors of either side, in plain PyTorch.

Games and reductions are numbers here, as in the operator's schema.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.adversarial import GAMES, losses_of_side, relu, statistics_of_side

REDUCTIONS = ("mean", "sum", "none")
NUMBERS = {game: number for number, game in enumerate(GAMES[:-1])}


def accumulation_dtype(logits: list[Tensor]) -> torch.dtype:
    """The dtype of computations with the logits: float64 if one of them is, else float32."""
    return torch.float64 if any(each.dtype == torch.float64 for each in logits) else torch.float32


def side_losses(
    logits: list[Tensor], reals: int, game: int, sign: float, real_label: float, fake_label: float,
    factor: float, reduction: int, with_statistics: bool, with_slopes: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The loss, statistics and slopes of the operator of this name, differentiable to every order.

    Args:
        logits: of any shapes, the first `reals` of real samples.
        game: its place in `NUMBERS`; reduction: in `REDUCTIONS`.
        sign, real_label, fake_label, factor: as of :func:`fastgan.ops.side_losses.side_losses`.

    Returns:
        loss: 0-d, or one vector for all logits; statistics (tensors, 4); slopes, one vector. The latter two
        are empty where they are not asked for.
    """
    dtype = accumulation_dtype(logits)
    wide = [each.to(dtype) for each in logits]
    losses = [
        factor * losses_of_side(each, i < reals, GAMES[game], sign, real_label if i < reals else fake_label)
        for i, each in enumerate(wide)
    ]
    if REDUCTIONS[reduction] == "none":
        loss = torch.cat([each.flatten() for each in losses])
    else:
        reduced = [each.mean() if REDUCTIONS[reduction] == "mean" else each.sum() for each in losses]
        loss = sum(reduced[1:], start=reduced[0])
    statistics = empty = logits[0].new_empty((0, 4), dtype=dtype)
    if with_statistics:
        threshold = (real_label + fake_label) / 2 if GAMES[game] == "least_squares" else 0.0
        with torch.no_grad():
            statistics = torch.stack(
                [statistics_of_side(each, i < reals, sign, threshold) for i, each in enumerate(wide)]
            )
    options = reals, game, sign, real_label, fake_label, factor, reduction
    parts = [each.flatten() for each in slopes(logits, *options)] if with_slopes else [empty.flatten()]
    return loss, statistics, torch.cat(parts)


def slopes(
    logits: list[Tensor], reals: int, game: int, sign: float, real_label: float, fake_label: float,
    factor: float, reduction: int,
) -> list[Tensor]:  # fmt: skip
    """The derivative of each logit's loss in plain, differentiable PyTorch.

    By `torch.func.grad`, which works whether autograd or another transform differentiates further.
    """
    dtype = accumulation_dtype(logits)

    def of_tensor(each: Tensor, is_real: bool) -> Tensor:
        label, weight = real_label if is_real else fake_label, factor
        if REDUCTIONS[reduction] == "mean":
            weight = factor / each.numel()

        def loss(each: Tensor) -> Tensor:
            return weight * losses_of_side(each, is_real, GAMES[game], sign, label).sum()

        return torch.func.grad(loss)(each.to(dtype))

    return [of_tensor(each, i < reals) for i, each in enumerate(logits)]


def by_few_operations(
    logits: list[Tensor], reals: int, game: int, sign: float, real_label: float, fake_label: float,
    factor: float, reduction: int,
) -> Tensor:  # fmt: skip
    """The loss in as few of PyTorch's operations as there are."""
    dtype, loss = accumulation_dtype(logits), None
    for i, each in enumerate(logits):
        x = each if each.dtype == dtype else each.to(dtype)
        target = sign if i < reals else -sign
        label = real_label if i < reals else fake_label
        losses: Tensor | None = None
        if GAMES[game] == "wasserstein":
            losses = x
        elif GAMES[game] == "cross_entropy" and label in (0.0, 1.0):
            losses = F.softplus(-x if (label == 1.0) == (sign > 0) else x)
        elif GAMES[game] == "least_squares":
            wanted = x.new_full((), label if sign > 0 else -label).expand_as(x)
            term = F.mse_loss(x, wanted, reduction=REDUCTIONS[reduction])
        elif GAMES[game] == "hinge":
            losses = relu(1 - x if target > 0 else 1 + x)
        else:
            losses = losses_of_side(x, i < reals, GAMES[game], sign, label)
        if losses is not None:
            term = losses.mean() if REDUCTIONS[reduction] == "mean" else losses.sum()
            if losses is x and target > 0:
                term = -term
        loss = term if loss is None else loss + term
    assert loss is not None
    if game == NUMBERS["least_squares"]:
        factor = factor / 2
    return loss if factor == 1.0 else factor * loss
