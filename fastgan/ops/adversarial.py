r"""Adversarial losses: the loss, its gradient and training statistics in one sweep.

With s the critic's sign, r = s D(x) and f = s D(G(z)), all means over logits:

============== ============================================= =============================
game           D minimizes                                   G minimizes
============== ============================================= =============================
cross_entropy  mean h(r, real_label) + mean h(f, fake_label) mean h(f, real_label)
least_squares  mean (r - real_label)^2 / 2                   mean (f - real_label)^2 / 2
               + mean (f - fake_label)^2 / 2
hinge          mean max(0, 1 - r) + mean max(0, 1 + f)       -mean f
wasserstein    mean f - mean r                               -mean f
relativistic   mean softplus(f - r)                          mean softplus(r - f)
============== ============================================= =============================

with h(l, t) = (1 - t) softplus(l) + t softplus(-l). The derivatives with respect to the logits are outputs
of the sweep; backward multiplies them by the incoming gradient. A backward pass that will itself be
differentiated recomputes them in plain PyTorch, and so does `torch.vmap`, so every order is exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import check_saved, differentiable, savable, wants_gradient
from fastgan.ops._checks import as_number, check_floating, check_one_of, check_same_device, check_same_shape
from fastgan.ops._declare import declare
from fastgan.reference import adversarial as reference
from fastgan.reference.adversarial import GAMES


def discriminator_loss(
    real: Tensor,
    fake: Tensor,
    game: str,
    *,
    sign: int = 1,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """D's loss and statistics; see :class:`fastgan.losses.AdversarialLoss`.

    Returns:
        The loss, 0-d, and the statistics (8,), without gradient: for real and then for fake logits the mean
        logit, the mean probability of being real, the accuracy, and the share of margin violations; both
        float32 (float64 for float64).
    """
    _check_pair(game, real, fake)
    real_label, fake_label = as_number("real_label", real_label), as_number("fake_label", fake_label)
    if _dispatch.choose("adversarial", (real, fake), backend) == "reference":
        dtype = _accumulation_dtype(real, fake)
        real, fake = real.to(dtype), fake.to(dtype)
        loss = reference.discriminator_loss(real, fake, game, sign, real_label, fake_label)
        return loss, _statistics(real, fake, game, sign, real_label, fake_label)
    differentiated = wants_gradient(real, fake)
    arguments = GAMES.index(game), False, float(sign), real_label, fake_label, differentiated
    return _adversarial(real.contiguous(), fake.contiguous(), *arguments)[:2]


def generator_loss(
    fake: Tensor,
    real: Tensor | None,
    game: str,
    *,
    sign: int = 1,
    real_label: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """G's loss, 0-d; see :class:`fastgan.losses.AdversarialLoss`. Only the relativistic game needs `real`."""
    if game != "relativistic":
        real = None
    elif real is None:
        raise ValueError("the relativistic generator loss needs real_logits, got None")
    if real is None:
        check_one_of("game", game, GAMES)
        _check_logits("fake_logits", fake)
    else:
        _check_pair(game, real, fake)
    real_label = as_number("real_label", real_label)
    tensors = (fake,) if real is None else (fake, real)
    if _dispatch.choose("adversarial", tensors, backend) == "reference":
        dtype = _accumulation_dtype(*tensors)
        return reference.generator_loss(
            None if real is None else real.to(dtype), fake.to(dtype), game, sign, real_label
        )
    differentiated = wants_gradient(*tensors)
    arguments = GAMES.index(game), True, float(sign), real_label, 0.0, differentiated
    return _adversarial(None if real is None else real.contiguous(), fake.contiguous(), *arguments)[0]


def _check_pair(game: str, real: Tensor, fake: Tensor) -> None:
    check_one_of("game", game, GAMES)
    _check_logits("real_logits", real)
    _check_logits("fake_logits", fake)
    check_same_device(real_logits=real, fake_logits=fake)
    if game == "relativistic":  # which pairs real and fake logits
        check_same_shape(real_logits=real, fake_logits=fake)


def _check_logits(name: str, logits: Tensor) -> None:
    check_floating(name, logits)
    if logits.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(logits.shape)}")


@torch.no_grad()
def _statistics(
    real: Tensor, fake: Tensor, game: str, sign: float, real_label: float, fake_label: float
) -> Tensor:
    threshold = (real_label + fake_label) / 2 if game == "least_squares" else 0.0
    return reference.statistics(real, fake, sign, threshold)


def _accumulation_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The dtype of computations with the logits: float64 if one of them is, else float32."""
    dtypes = [tensor.dtype for tensor in tensors if tensor is not None]
    return torch.float64 if torch.float64 in dtypes else torch.float32


# --- op and fake ----------------------------------------------------------------------------------


# Slopes, the derivatives of the loss, form one vector, real before fake, so that one product scales all.
@declare(
    "adversarial(Tensor? real, Tensor fake, int game, bool generator, float sign, float real_label, "
    "float fake_label, bool with_slopes) -> (Tensor loss, Tensor statistics, Tensor slopes)"
)
def _adversarial_fake(real, fake, game, generator, sign, real_label, fake_label, with_slopes):
    dtype = _accumulation_dtype(real, fake)
    count = fake.numel() + (0 if real is None else real.numel()) if with_slopes else 0
    sizes = (), (0 if generator else 8,), (count,)
    return tuple(fake.new_empty(size, dtype=dtype) for size in sizes)


# --- batching: plain PyTorch, since each call has its own loss ----------------------------------------------


def _adversarials(size, batched, real, fake, game, generator, sign, real_label, fake_label, with_slopes):
    options = GAMES[game], generator, sign, real_label, fake_label

    def single_call(real, fake):
        dtype = _accumulation_dtype(real, fake)
        wide_real, wide_fake = None if real is None else real.to(dtype), fake.to(dtype)
        loss = _plain_loss(wide_real, wide_fake, *options)
        statistics = slopes = fake.new_empty(0, dtype=dtype)
        if not generator:
            assert wide_real is not None
            statistics = _statistics(wide_real, wide_fake, GAMES[game], sign, real_label, fake_label)
        if with_slopes:
            parts = _slopes(real, fake, *options)
            slopes = torch.cat([part.flatten() for part in parts if part is not None])
        return loss, statistics, slopes

    dims = tuple(0 if is_batched else None for is_batched in batched[:2])
    return torch.vmap(single_call, dims)(real, fake)


# --- backward -------------------------------------------------------------------------------------


def _save_for_adversarial(ctx, inputs, output):
    real, fake, game, generator, sign, real_label, fake_label, with_slopes = inputs
    _, statistics, slopes = output
    check_saved("adversarial", "with_slopes", with_slopes)
    ctx.mark_non_differentiable(statistics, slopes)
    ctx.save_for_backward(savable(real), savable(fake), slopes)
    ctx.options = GAMES[game], generator, sign, real_label, fake_label


def _adversarial_gradients(ctx, grad, *_):
    real, fake, slopes = ctx.saved_tensors
    gradients: tuple[Any, ...]
    if torch.is_grad_enabled():
        gradients = tuple(part if part is None else grad * part for part in _slopes(real, fake, *ctx.options))
    else:
        gradients = _split(grad * slopes, real, fake)
    needs_real, needs_fake, *_ = ctx.needs_input_grad
    grad_real = _in_dtype_of(real, gradients[0]) if needs_real else None
    grad_fake = _in_dtype_of(fake, gradients[1]) if needs_fake else None
    return grad_real, grad_fake, None, None, None, None, None, None


def _in_dtype_of(logits: Tensor, gradient: Tensor) -> Tensor:
    return gradient if gradient.dtype == logits.dtype else gradient.to(logits.dtype)


def _split(flat: Tensor, real: Tensor | None, fake: Tensor) -> tuple[Any, ...]:
    """A flat vector for all logits as (real, fake) parts in their shapes."""
    dtype, shape = fake.dtype, fake.shape
    if flat.dtype != dtype and (real is None or real.dtype == dtype):
        flat = flat.to(dtype)  # in one launch
    if real is None:
        return None, flat.view(shape)
    if real.shape == shape:
        return flat.view(2, *shape).unbind()  # half as many PyTorch calls as below
    return flat[: real.numel()].view(real.shape), flat[real.numel() :].view(shape)


def _slopes(
    real: Tensor | None, fake: Tensor, game: str, generator: bool, sign: float, real_label: float,
    fake_label: float,
) -> tuple[Tensor | None, Tensor]:  # fmt: skip
    """The derivatives of the loss in plain, differentiable PyTorch.

    By `torch.func.grad`, which works whether autograd or another transform differentiates further.
    """
    dtype, options = _accumulation_dtype(real, fake), (game, generator, sign, real_label, fake_label)
    if real is None:
        return None, torch.func.grad(lambda fake: _plain_loss(None, fake, *options))(fake.to(dtype))
    gradient = torch.func.grad(lambda real, fake: _plain_loss(real, fake, *options), argnums=(0, 1))
    return gradient(real.to(dtype), fake.to(dtype))


def _plain_loss(
    real: Tensor | None, fake: Tensor, game: str, generator: bool, sign: float, real_label: float,
    fake_label: float,
) -> Tensor:  # fmt: skip
    if generator:
        return reference.generator_loss(real, fake, game, sign, real_label)
    assert real is not None
    return reference.discriminator_loss(real, fake, game, sign, real_label, fake_label)


_adversarial = differentiable("adversarial", _save_for_adversarial, _adversarial_gradients, _adversarials)
