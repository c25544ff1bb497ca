"""Losses of one side's logits: of one tensor, or of a list with one for each scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from torch import Tensor
from torch.compiler import is_compiling

from fastgan.losses._probabilities import ProbabilityCheck, cross_entropy_of_probabilities
from fastgan.ops._checks import as_flag, check_floating, check_one_of, check_same_device, described
from fastgan.ops.side_losses import REDUCTIONS, mean_if_few, side_losses

Logits: TypeAlias = "Tensor | Sequence[Tensor]"
"""A tensor, or a list of one for each scale of the discriminator."""


def scales_of(name: str, logits: object, *, of_features: bool = False) -> list[Tensor]:
    """The tensors, one for each scale.

    Args:
        of_features: whether a scale may be a list of features, of which the last are the logits, as
            pix2pixHD's discriminators return them.

    Raises:
        TypeError, ValueError: another kind, or an empty list.
    """
    if isinstance(logits, Tensor):
        return [logits]
    if not isinstance(logits, (list, tuple)):
        raise TypeError(
            f"{name} must be a floating-point tensor, or a list with one for each scale, got "
            f"{described(logits)}"
        )
    if not logits:
        raise ValueError(f"{name} must have a tensor for each scale, got an empty {type(logits).__name__}")
    scales = [*logits]
    if of_features:
        scales = [scale[-1] if isinstance(scale, (list, tuple)) and scale else scale for scale in scales]
    for i, scale in enumerate(scales):
        if not isinstance(scale, Tensor):
            check_floating(f"{name}[{i}]", scale)
    return scales


def named(name: str, scales: list[Tensor]) -> list[tuple[str, Tensor]]:
    """Each scale with its name in errors."""
    return [(name if len(scales) == 1 else f"{name}[{i}]", scale) for i, scale in enumerate(scales)]


def check_devices(scales: Iterable[tuple[str, Tensor]]) -> None:
    """Raises a ValueError that lists the scales by their names unless they are on one device."""
    check_same_device(**dict(scales))


def check_not_empty(name: str, logits: Tensor) -> None:
    if logits.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(logits.shape)}")


def check_reduction(reduction: object) -> None:
    check_one_of("reduction", reduction, REDUCTIONS)


def is_mean(reduction: object) -> bool:
    """Whether it is "mean", which what is compared element by element is not."""
    return isinstance(reduction, str) and reduction == "mean"


def side_loss(name: str, scales: list[Tensor], real: bool, game: str, **options: Any) -> tuple[Any, Any]:
    """:func:`fastgan.ops.side_losses.side_losses` of one side, with its name in errors."""
    sides: tuple[list[Tensor], list[Tensor]] = (scales, []) if real else ([], scales)
    return side_losses(*sides, game, names=(name, name), **options)


def side_mean(
    name: str, scales: list[Tensor], real: bool, game: str, label: float = 1.0, factor: float = 1.0
) -> Tensor:
    """The scales' means, added, of one side."""
    if len(scales) == 1:
        few = mean_if_few(scales[0], real, game, label=label, factor=factor)
        if few is not None:
            return few
    loss: Tensor
    loss, _ = side_loss(name, scales, real, game, real_label=label, fake_label=label, factor=factor)
    return loss


def side_cross_entropy(
    name: str,
    logits: Logits,
    label: float,
    from_probabilities: bool,
    check: ProbabilityCheck,
    *,
    factor: float = 1.0,
    reduction: str = "mean",
) -> Any:
    """Binary cross entropy of logits, or of probabilities, with one constant target.

    Returns:
        0-d, added over the scales; for "none" in the shape of each, in a list if the logits are in one.
    """
    scales = scales_of(name, logits)
    if as_flag("from_probabilities", from_probabilities):
        check_reduction(reduction)
        for of_scale, scale in named(name, scales):
            check_floating(of_scale, scale)
            check_not_empty(of_scale, scale)
        check_devices(named(name, scales))
        losses = [
            factor * cross_entropy_of_probabilities(of_scale, scale, label, reduction)
            for of_scale, scale in named(name, scales)
        ]
        loss: Any = losses if reduction == "none" else sum(losses[1:], start=losses[0])
    else:
        if is_mean(reduction):
            loss = side_mean(name, scales, True, "cross_entropy", label, factor)
        else:
            options = {"real_label": label, "factor": factor, "reduction": reduction}
            loss, _ = side_loss(name, scales, True, "cross_entropy", **options)
        if not is_compiling() and check.undecided:
            check.look(*scales)
    return loss[0] if reduction == "none" and isinstance(logits, Tensor) else loss
