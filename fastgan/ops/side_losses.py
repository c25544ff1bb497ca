r"""Adversarial losses of one side or both, of one or several scales: loss, gradient, statistics in one sweep.

D's losses by side, with s the critic's sign, r = s D(x) and f = s D(G(z)):

============== ================== ==================
game           of a real logit    of a fake logit
============== ================== ==================
cross_entropy  h(r, real_label)   h(f, fake_label)
least_squares  (r - real_label)^2 (f - fake_label)^2
               / 2                / 2
hinge          max(0, 1 - r)      max(0, 1 + f)
wasserstein    -r                 f
============== ================== ==================

with h(l, t) = (1 - t) softplus(l) + t softplus(-l). G's losses are those of the real side: its fakes are to
be taken for real; its hinge loss is the Wasserstein one. A discriminator of several scales gives a tensor of
logits for each: a tensor's losses are reduced to their mean or sum, and these are added. One side at a time
is what most trainers take; :mod:`fastgan.ops.adversarial` has both sides of one scale, and the relativistic
game.

The derivatives with respect to the logits are outputs of the sweep; backward multiplies them by the incoming
gradient. A backward pass that will itself be differentiated recomputes them in plain PyTorch, and so does
`torch.vmap`, so every order is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from fastgan._torch_internals import forward_mode_active
from fastgan.ops import _dispatch
from fastgan.ops._autograd import check_saved, differentiable, savable, saved_tensors_are_ours, wants_gradient
from fastgan.ops._checks import check_floating, check_one_of, check_same_device, is_floating
from fastgan.ops._declare import declare
from fastgan.reference import side_losses as reference
from fastgan.reference.side_losses import NUMBERS, REDUCTIONS

MOST = 6
"""The largest number of tensors of one call of the operator."""
FEW = {
    "cross_entropy": (21_000, 14_000, 2_500),
    "least_squares": (50_000, 12_000),
    "hinge": (4_500,),
    "wasserstein": (180_000, 140_000, 98_000, 50_000),
}
"""For one tensor, two and so on: how many logits in all PyTorch's own operations take in less time on a CPU.

An op whose gradient is written in Python takes about 90 us forward and backward, and 10 us more for each
further tensor, on an AMD EPYC where `logits.mean()` takes 37; measured there with one thread, and without
statistics, which the op has at no cost.
"""


def side_losses(
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    game: str,
    *,
    sign: int = 1,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    factor: float = 1.0,
    reduction: str = "mean",
    with_statistics: bool = False,
    backend: str | None = None,
    names: tuple[str, str] = ("real_logits", "fake_logits"),
) -> tuple[Any, Tensor | None]:
    """The losses of real and of fake logits, added over all tensors, and statistics.

    Args:
        real, fake: the scales of each side, of any shapes and number; one may be empty.
        game: "cross_entropy", "least_squares", "hinge" or "wasserstein"; see the table above.
        sign: -1 if high logits mean fake.
        real_label, fake_label: of cross entropy and least squares.
        factor: of all losses.
        reduction: of the losses within a tensor: "mean", "sum" or "none".
        with_statistics: whether to compute statistics.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device. On a CPU it leaves
            few logits without statistics, see `FEW`, and forward-mode derivatives to PyTorch's operations.
        names: of real and fake in errors.

    Returns:
        loss: 0-d; for "none" a list of tensors in the logits' shapes, real before fake; float32 (float64 if
            a tensor is).
        statistics: (tensors, 4), of the loss's dtype, without gradient: for each tensor, real before fake,
            the mean logit, the mean probability of being real, the accuracy, and the share of margin
            violations; None without `with_statistics`.

    Raises:
        TypeError: a tensor that is not floating-point.
        ValueError: an unknown game, the relativistic one among them, or reduction; no logits, an empty
            tensor or several devices.
        RuntimeError: the requested backend cannot serve the call.
    """
    logits = [*real, *fake]
    if type(game) is not str or game not in NUMBERS:
        check_one_of("game", game, NUMBERS)
    if type(reduction) is not str or reduction not in REDUCTIONS:
        check_one_of("reduction", reduction, REDUCTIONS)
    _check(logits, len(real), names)
    if len(logits) > MOST:
        return _in_parts(
            real, fake, game, sign=sign, real_label=real_label, fake_label=fake_label, factor=factor,
            reduction=reduction, with_statistics=with_statistics, backend=backend, names=names,
        )  # fmt: skip
    arguments = (
        len(real), NUMBERS[game], float(sign), float(real_label), float(fake_label), float(factor),
        REDUCTIONS.index(reduction), with_statistics,
    )  # fmt: skip
    if not with_statistics and is_few(logits, game, reduction) and _dispatch.requested(backend) is None:
        return reference.by_few_operations(logits, *arguments[:-1]), None
    chosen = _dispatch.choose("side_losses", tuple(logits), backend)
    if chosen == "native" and forward_mode_active() and _dispatch.requested(backend) is None:
        chosen = "reference"
    if chosen == "reference":
        loss, statistics, _ = reference.side_losses(logits, *arguments, False)
    else:
        logits = [each.contiguous() for each in logits]
        loss, statistics, _ = _side_losses(logits, *arguments, wants_gradient(*logits))
    return (
        [*_shaped(loss, logits)] if reduction == "none" else loss
    ), statistics if with_statistics else None


def is_few(logits: list[Tensor], game: str, reduction: str) -> bool:
    """Whether PyTorch's own operations are faster for these, without statistics."""
    few = FEW[game]
    if len(logits) > len(few) or reduction == "none" or not logits[0].is_cpu or is_compiling():
        return False
    return sum([each.numel() for each in logits]) < few[len(logits) - 1]


def _check(logits: list[Tensor], reals: int, names: tuple[str, str]) -> None:
    if not logits:
        raise ValueError(f"{names[0]} or {names[1]} must be given, got no logits")
    for i, each in enumerate(logits):
        if not is_floating(each):
            check_floating(_name(i, logits, reals, names), each)
        if each.numel() == 0:
            raise ValueError(
                f"{_name(i, logits, reals, names)} must not be empty, got shape {tuple(each.shape)}"
            )
        if each.device != logits[0].device:
            of_first, of_this = (_name(j, logits, reals, names) for j in (0, i))
            check_same_device(**{of_first: logits[0], of_this: each})


def _name(i: int, logits: list[Tensor], reals: int, names: tuple[str, str]) -> str:
    """The name of a tensor in errors, with its index where its side has several."""
    if i < reals:
        return names[0] if reals == 1 else f"{names[0]}[{i}]"
    return names[1] if len(logits) - reals == 1 else f"{names[1]}[{i - reals}]"


def _in_parts(
    real: Sequence[Tensor], fake: Sequence[Tensor], game: str, **options: Any
) -> tuple[Any, Tensor | None]:
    """As many calls as it takes with no more than MOST tensors of one side in each."""
    if any(each.dtype == torch.float64 for each in (*real, *fake)):  # of one part alone, perhaps
        real, fake = [each.double() for each in real], [each.double() for each in fake]
    calls = [
        *((real[i : i + MOST], []) for i in range(0, len(real), MOST)),
        *(([], fake[i : i + MOST]) for i in range(0, len(fake), MOST)),
    ]
    losses, statistics = zip(*(side_losses(*sides, game, **options) for sides in calls), strict=True)
    total = sum(losses[1:], start=losses[0])
    return total, torch.cat(statistics) if options["with_statistics"] else None


def _shaped(flat: Tensor, logits: list[Tensor]) -> Sequence[Tensor]:
    """A flat vector for all logits as parts in their shapes."""
    shape = logits[0].shape
    if len(logits) == 1:
        return (flat.view(shape),)
    if all(each.shape == shape for each in logits):
        return flat.view(len(logits), *shape).unbind()  # a third of the PyTorch calls below
    parts = flat.split([each.numel() for each in logits])
    return [part.view(each.shape) for part, each in zip(parts, logits, strict=True)]


# --- op and fake ----------------------------------------------------------------------------------


# Losses that are not reduced form one vector for all tensors; so do slopes, their derivatives.
@declare(
    "side_losses(Tensor[] logits, int reals, int game, float sign, float real_label, float fake_label, "
    "float factor, int reduction, bool with_statistics, bool with_slopes) "
    "-> (Tensor loss, Tensor statistics, Tensor slopes)"
)
def _side_losses_fake(
    logits, reals, game, sign, real_label, fake_label, factor, reduction, with_statistics, with_slopes
):
    dtype, count = reference.accumulation_dtype(logits), sum(each.numel() for each in logits)
    sizes = (
        (count,) if REDUCTIONS[reduction] == "none" else (), (len(logits) if with_statistics else 0, 4),
        (count if with_slopes else 0,),
    )  # fmt: skip
    return tuple(logits[0].new_empty(size, dtype=dtype) for size in sizes)


# --- few logits -------------------------------------------------------------------------------------


def mean_if_few(
    logits: Any, real: bool, game: str, sign: int = 1, label: float = 1.0, factor: float = 1.0
) -> Tensor | None:
    """The mean loss of one valid tensor if PyTorch's own operations compute it faster, else None.

    :func:`side_losses` comes to the same, but its checks of lists take half as long as these operations.
    """
    if is_compiling() or not is_floating(logits):
        return None
    if not logits.is_cpu or not 0 < logits.numel() < FEW[game][0] or _dispatch.requested() is not None:
        return None
    return reference.by_few_operations([logits], int(real), NUMBERS[game], sign, label, label, factor, 0)


# --- batching: plain PyTorch, since each call has its own loss ----------------------------------------------


def _calls(size: int, batched: Sequence[Any], logits: list[Tensor], *options: Any) -> tuple[Tensor, ...]:
    dims = tuple(0 if is_batched else None for is_batched in batched[0])
    return torch.vmap(lambda *each: reference.side_losses(list(each), *options), dims)(*logits)


# --- backward -------------------------------------------------------------------------------------


def _save_for_side_losses(ctx, inputs, output):
    logits, *options, _, with_slopes = inputs
    _, statistics, slopes = output
    check_saved("side_losses", "with_slopes", with_slopes)
    ctx.mark_non_differentiable(statistics, slopes)
    ctx.save_for_backward(*map(savable, logits), slopes)
    ctx.options = options


def _side_losses_gradients(ctx, grad, *_):
    *logits, slopes = ctx.saved_tensors
    if torch.is_grad_enabled():
        grads = _shaped(grad, logits) if grad.dim() else [grad] * len(logits)
        factors = reference.slopes(logits, *ctx.options)
        parts: Sequence[Tensor] = [grad * slope for grad, slope in zip(grads, factors, strict=True)]
    else:
        dtype = logits[0].dtype
        # A fresh allocation of this size costs more than the product.
        flat = slopes.mul_(grad) if saved_tensors_are_ours(grad) else grad * slopes
        if flat.dtype != dtype and all(each.dtype == dtype for each in logits):
            flat = flat.to(dtype)  # in one launch
        parts = _shaped(flat, logits)
    needed = ctx.needs_input_grad[0]
    gradients = [
        (parts[i] if parts[i].dtype == logits[i].dtype else parts[i].to(logits[i].dtype))
        if needed[i]
        else None
        for i in range(len(logits))
    ]
    return gradients, None, None, None, None, None, None, None, None, None


_side_losses = differentiable("side_losses", _save_for_side_losses, _side_losses_gradients, _calls)
